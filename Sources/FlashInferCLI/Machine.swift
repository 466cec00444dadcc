import FlashInfer
import Foundation

/// What can be found out about this machine without asking it to do anything.
struct Machine {
    /// A processor cache.
    struct Cache {
        let name: String
        let size: String
    }

    /// The processor's name as the system gives it.
    let processor: String?
    /// The instruction-set extensions the system reports; empty where it does not.
    let features: Set<String>
    let cores = ProcessInfo.processInfo.activeProcessorCount
    let memory = ProcessInfo.processInfo.physicalMemory
    let system = ProcessInfo.processInfo.operatingSystemVersionString
    let caches: [Cache]

    init() {
        // One paragraph per core, all alike for our purposes; files of /proc have no size, so no contents(atPath:).
        let text = Self.read("/proc/cpuinfo") ?? ""
        var fields: [String: String] = [:]
        for line in text.split(separator: "\n") {
            let parts = line.split(separator: ":", maxSplits: 1).map { $0.trimmingCharacters(in: .whitespaces) }
            if parts.count == 2, fields[parts[0]] == nil { fields[parts[0]] = parts[1] }
        }
        processor = fields["model name"] ?? fields["Model"]
        let flags = fields["flags"] ?? fields["Features"] ?? ""
        features = Set(flags.split(separator: " ").map(String.init))
        caches = Self.readCaches()
    }

    var architecture: String {
        #if arch(x86_64)
            "x86_64"
        #elseif arch(arm64)
            "arm64"
        #else
            "another architecture"
        #endif
    }

    /// Whether kernels of `level` run here, and if not, why.
    func verdict(on level: InstructionSet) -> String {
        if level.isAvailable { return level == .detected ? "in use" : "available" }
        let belongsHere = (level == .neon) == (architecture == "arm64")
        guard belongsHere else { return "no: not on \(architecture)" }
        let missing = Self.requirements(of: level).filter { !features.contains($0) }
        if features.isEmpty { return "no" }
        return missing.isEmpty ? "no: not in this build" : "no: the processor lacks \(missing.joined(separator: ", "))"
    }

    /// "pip 23.0 from …, python 3.11", or nil when there is no Python with pip.
    func pipVersion() async -> String? {
        let process = Process()
        process.executableURL = URL(fileURLWithPath: "/usr/bin/env")
        process.arguments = ["python3", "-m", "pip", "--version"]
        let output = Pipe()
        process.standardOutput = output
        process.standardError = FileHandle.nullDevice
        guard (try? process.run()) != nil else { return nil }
        let data = output.fileHandleForReading.readDataToEndOfFile()
        process.waitUntilExit()
        guard process.terminationStatus == 0 else { return nil }
        return String(decoding: data, as: UTF8.self).trimmingCharacters(in: .whitespacesAndNewlines)
    }

    /// A number of bytes in binary units.
    static func bytes(_ count: UInt64) -> String {
        "\(StatisticsTable.decimal(Double(count) / Double(1 << 30))) GiB"
    }

    /// What a level's kernels use, by the names /proc/cpuinfo has for it.
    private static func requirements(of level: InstructionSet) -> [String] {
        switch level {
        case .scalar: []
        case .neon: ["asimd"]
        case .avx2: ["avx2", "fma", "f16c"]
        case .avx512: requirements(of: .avx2) + ["avx512f", "avx512bw", "avx512dq", "avx512vl"]
        case .avx512BF16: requirements(of: .avx512) + ["avx512_vnni", "avx512_bf16", "avx512vbmi"]
        }
    }

    private static func readCaches() -> [Cache] {
        (0..<8).compactMap { index in
            let folder = "/sys/devices/system/cpu/cpu0/cache/index\(index)/"
            guard let level = read(folder + "level"), let kind = read(folder + "type"),
                let size = read(folder + "size")
            else { return nil }
            let suffix = kind == "Data" ? "d" : kind == "Instruction" ? "i" : ""
            return Cache(name: "L\(level)\(suffix)", size: size.replacing("K", with: " KiB"))
        }
    }

    private static func read(_ path: String) -> String? {
        guard let file = FileHandle(forReadingAtPath: path) else { return nil }
        let data = file.readDataToEndOfFile()
        return String(decoding: data, as: UTF8.self).trimmingCharacters(in: .whitespacesAndNewlines)
    }
}
