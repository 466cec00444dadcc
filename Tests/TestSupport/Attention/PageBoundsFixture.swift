package import FlashInferCore

/// Bounds of pages kept up to date over appends, rollbacks and pages that change hands, against their definition at each step.
package final class PageBoundsFixture {
    private let device: any Device
    private let type: DType
    private let keys, bounds, table, lengths, appended: DeviceTensor
    private let operation: UpdatePageBoundsOperation
    private var random = SeededGenerator(seed: 8)
    private var expected: [Double]

    private static let (requests, width, pages, heads, maximum) = (3, 6, 20, 3, 9)
    private let pageSize, dim: Int

    package init(_ type: DType, pageSize: Int = 4, dim: Int = 24, on device: any Device) throws {
        (self.device, self.type, self.pageSize, self.dim) = (device, type, pageSize, dim)
        func tensor(_ dtype: DType, _ shape: Shape) throws -> DeviceTensor {
            try DeviceTensor(AttentionTensor(dtype, shape), on: device)
        }
        keys = try tensor(type, [Self.pages, pageSize, Self.heads, dim])
        bounds = try tensor(type.byteCount == 1 ? .bfloat16 : type, [Self.pages, 2, Self.heads, dim])
        table = try tensor(.int32, [Self.requests, Self.width])
        (lengths, appended) = (try tensor(.int32, [Self.requests]), try tensor(.int32, [Self.requests]))
        operation = try UpdatePageBoundsOperation(
            keys: .paged(keys.view, layout: .nhd), bounds: bounds.view, table: table.view, lengths: lengths.view,
            appended: appended.view, maximumAppended: Self.maximum)
        expected = bounds.host.elements
    }

    /// The steps at which bounds are not what they must be; `capture` is given the operation once, and gives what runs it.
    package func mismatches(_ capture: (@escaping () throws(FlashInferError) -> Void) throws -> () throws -> Void)
        throws -> [String]
    {
        var now = [0, 0, 0]
        var free = Array(0..<Self.pages)
        var owned: [[Int]] = [[], [], []]
        var wrong: [String] = []
        try step(&now, owned: &owned, free: &free, new: [1, 0, 5])
        try operation.validate()
        let (device, operation) = (device, operation)
        let run = try capture { () throws(FlashInferError) in try device.execute(.updatePageBounds(operation)) }
        let appends = [[1, 0, 5], [1, 9, 0], [1, 1, 1], [2, 8, 6], [9, 0, 9], [0, 0, 0]]
        for (number, new) in appends.enumerated() {
            if number > 0 {
                // Keys of a draft that did not stand; and a sequence that ends, whose pages the next to need some gets.
                if number == 3 { now[0] -= 2 }
                if number == 4 {
                    free += owned[1].reversed()
                    (owned[1], now[1]) = ([], 0)
                }
                try step(&now, owned: &owned, free: &free, new: new)
            }
            try run()
            try bounds.download()
            expect(now, owned, new)
            // NaN equals itself here.
            let found = bounds.host.elements
            for index in found.indices where found[index] != expected[index] {
                if found[index].isNaN, expected[index].isNaN { continue }
                wrong.append("\(type) append \(number), element \(index): \(found[index]), not \(expected[index])")
                break
            }
        }
        return wrong
    }

    /// New keys, in pages that are taken as they are needed; what else lies in a page stays.
    private func step(_ now: inout [Int], owned: inout [[Int]], free: inout [Int], new: [Int]) throws {
        for request in 0..<Self.requests {
            for position in now[request]..<now[request] + new[request] {
                let place = position / pageSize
                if place == owned[request].count { owned[request].append(free.removeLast()) }
                let row = owned[request][place] * pageSize + position % pageSize
                for element in 0..<Self.heads * dim {
                    keys.host.set(row * Self.heads * dim + element, Double(random.normal()) * 3)
                }
            }
            now[request] += new[request]
            for (place, page) in owned[request].enumerated() {
                table.host.set(request * Self.width + place, Double(page))
            }
            lengths.host.set(request, Double(now[request]))
            appended.host.set(request, Double(new[request]))
        }
        for tensor in [keys, table, lengths, appended] { try tensor.upload(tensor.host) }
    }

    private func expect(_ now: [Int], _ owned: [[Int]], _ new: [Int]) {
        for request in 0..<Self.requests where new[request] > 0 {
            for place in (now[request] - new[request]) / pageSize...(now[request] - 1) / pageSize {
                let page = owned[request][place]
                for element in 0..<Self.heads * dim {
                    let all = (0..<min(now[request] - place * pageSize, pageSize)).map {
                        keys.host.get((page * pageSize + $0) * Self.heads * dim + element)
                    }
                    expected[page * 2 * Self.heads * dim + element] = all.min() ?? .nan
                    expected[(page * 2 + 1) * Self.heads * dim + element] = all.max() ?? .nan
                }
            }
        }
    }
}
