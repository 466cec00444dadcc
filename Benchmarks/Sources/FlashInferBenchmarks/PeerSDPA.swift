import Foundation

/// PyTorch's scaled_dot_product_attention on the same shapes, by Peers/sdpa.py.
enum PeerSDPA {
    /// Rates by work, such as "prefill/bfloat16/1024" (GFLOP/s) and "decode/float32" (GB/s): PyTorch's best form of each.
    /// Empty, with a line that says why, where there is no Python with torch.
    static func measure(python: String, threads: Int) throws -> [String: Double] {
        if python == "none" { return [:] }
        let script = URL(fileURLWithPath: #filePath).deletingLastPathComponent().deletingLastPathComponent()
            .deletingLastPathComponent().appendingPathComponent("Peers/sdpa.py")
        let process = Process()
        process.executableURL = URL(fileURLWithPath: "/usr/bin/env")
        process.arguments = [python, script.path, "--threads", "\(threads)"]
        let output = Pipe()
        process.standardOutput = output
        process.standardError = FileHandle.standardError
        do {
            try process.run()
        } catch {
            print("no peer: cannot run \(python): \(error.localizedDescription)")
            return [:]
        }
        let data = output.fileHandleForReading.readDataToEndOfFile()
        process.waitUntilExit()
        guard process.terminationStatus == 0 else {
            print("no peer: \(python) \(script.lastPathComponent) ended with status \(process.terminationStatus)")
            return [:]
        }
        return try JSONDecoder().decode([String: Double].self, from: data)
    }
}
