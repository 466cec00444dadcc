print("flashinfer")
