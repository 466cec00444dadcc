// Attention on tensors of your own: one prompt, plan once, run once, read the result back.
//
//   swift run -c release AttentionOnTensors

import FlashInfer

@main
enum AttentionOnTensors {
    static func main() throws {
        let device = try Devices.makeDefault()
        print("device: \(device.name)")

        // 4 query heads share 2 key/value heads (GQA), 8 tokens, head dim 64.
        let (tokens, shape) = (8, try AttentionShape(queryHeads: 4, kvHeads: 2, headDimQK: 64))
        let queries = try DeviceBuffer(on: device, waves(tokens * 4 * 64, 0.11), shape: [tokens, 4, 64])
        let keys = try DeviceBuffer(on: device, waves(tokens * 2 * 64, 0.07), shape: [tokens, 2, 64])
        let values = try DeviceBuffer(on: device, waves(tokens * 2 * 64, 0.05), shape: [tokens, 2, 64])
        let output = try DeviceBuffer(on: device, dtype: .float32, shape: [tokens, 4, 64])
        let lse = try DeviceBuffer(on: device, dtype: .float32, shape: [tokens, 4])

        // The plan depends on lengths and heads only: every layer of a model can use it.
        let attention = try PlannedAttention(
            AttentionProblem(
                geometry: .contiguous(queryLength: tokens, kvLength: tokens), shape: shape,
                variant: AttentionVariant(mask: .causal, windowLeft: 4), queryType: .float32, kvType: .float32),
            on: device)
        try attention.run(
            queries.view, KVCacheView.ragged(keys: keys.view, values: values.view), into: output.view,
            logSumExp: lse.view)

        print("work items: \(attention.plan.items.count), workspace: \(attention.plan.workspaceByteCount) bytes")
        let (result, sums): ([Float], [Float]) = (try output.read(), try lse.read())
        print("output[7, 0, 0 ..< 4] = \(result[7 * 4 * 64 ..< 7 * 4 * 64 + 4])")
        print("lse[7, 0] = \(sums[7 * 4]) (base 2)")

        // A mistake is an error that names the argument, the value and the limit.
        do {
            try attention.run(
                keys.view, KVCacheView.ragged(keys: keys.view, values: values.view), into: output.view)
        } catch {
            print("a wrong tensor: \(error)")
        }
    }

    /// Some numbers.
    private static func waves(_ count: Int, _ step: Float) -> [Float] {
        (0..<count).map { index in
            let phase = (Float(index) * step).truncatingRemainder(dividingBy: 2)
            return phase < 1 ? phase : 2 - phase
        }
    }
}
