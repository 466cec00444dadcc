import FlashInferCore
import Testing

@Suite struct TensorViewTests {
    let region = MemoryRegion(address: 4096, byteCount: 96, device: .recording)

    @Test func rowMajorByDefault() throws {
        let view = try TensorView(region, dtype: .float32, shape: [2, 3, 4])
        #expect(view.strides == [12, 4, 1] && view.isContiguous && view.elementCount == 24)
        #expect(view.select(1).address == 4096 + 48)
        #expect(view.slice(1..<3, along: 1).shape == [2, 2, 4])
        #expect(view.transposed(0, 2).strides == [1, 4, 12] && !view.transposed(0, 2).isContiguous)
        #expect(try view.reshaped([6, 4]).strides == [4, 1])
    }

    @Test func nothingReachesOutsideTheRegion() {
        #expect(throws: FlashInferError.self) { try TensorView(region, dtype: .float32, shape: [25]) }
        #expect(throws: FlashInferError.self) { try TensorView(region, byteOffset: 4, dtype: .float32, shape: [24]) }
        #expect(throws: FlashInferError.self) {
            try TensorView(region, dtype: .float32, shape: [2, 3], strides: [22, 1])
        }
        #expect(throws: FlashInferError.self) { try TensorView(region, byteOffset: 2, dtype: .float32, shape: [1]) }
        #expect(throws: FlashInferError.self) { try TensorView(region, dtype: .float32, shape: [2, -3]) }
        #expect(throws: FlashInferError.self) { try TensorView(region, dtype: .float32, shape: [2], strides: [-1]) }
        #expect(throws: FlashInferError.self) { try TensorView(region, dtype: .float32, shape: [.max, .max]) }
        #expect(throws: FlashInferError.self) { try TensorView(region, dtype: .float32, shape: [3], strides: [.max]) }
    }

    @Test func emptyTensorsFitAnywhere() throws {
        let empty = MemoryRegion(address: 4096, byteCount: 0, device: .recording)
        #expect(try TensorView(empty, dtype: .float32, shape: [0, 5]).elementCount == 0)
    }

    @Test func buffersFreeWhatTheyAllocate() throws {
        let device = RecordingDevice()
        do {
            let buffer = try DeviceBuffer(on: device, [Float](repeating: 1, count: 6), shape: [2, 3])
            #expect(device.liveByteCount == 24 && device.uploadedByteCount == 24)
            #expect(try buffer.read(as: Float.self) == [Float](repeating: 0, count: 6))
            #expect(throws: FlashInferError.invalidArgument("read type", found: "int32", expected: "float32")) {
                _ = try buffer.read(as: Int32.self)
            }
        }
        #expect(device.liveByteCount == 0)
        #expect(throws: FlashInferError.lengthMismatch("elements", found: 1, expected: 6)) {
            _ = try DeviceBuffer(on: device, [Float(1)], shape: [2, 3])
        }
        for shape: Shape in [[-1, 3], [.max, .max]] {
            #expect(throws: FlashInferError.overflow("buffer shape \(shape)")) {
                _ = try DeviceBuffer(on: device, [Float(1)], shape: shape)
            }
        }
        #expect(device.liveByteCount == 0)
    }
}
