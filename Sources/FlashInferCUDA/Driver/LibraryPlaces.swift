#if canImport(Glibc)
    internal import Glibc
#elseif canImport(Musl)
    internal import Musl
#elseif canImport(Darwin)
    internal import Darwin
#endif

/// Where NVIDIA's libraries usually are: names for the system's loader first, then files.
package enum LibraryPlaces {
    /// The driver: comes with the machine, never with a package.
    package static let driver: [String] =
        ["libcuda.so.1"]
        + [
            "/usr/lib/x86_64-linux-gnu", "/usr/lib/aarch64-linux-gnu", "/usr/lib64", "/usr/local/nvidia/lib64",
            "/usr/local/nvidia/lib", "/run/opengl-driver/lib", "/usr/lib/wsl/lib", "/usr/local/cuda/compat",
        ].map { $0 + "/libcuda.so.1" }

    /// A library of the CUDA toolkit: by the loader, in toolkits, in PyPI's wheels.
    ///
    /// - Parameters:
    ///   - names: file names, the best first: "libnvrtc.so.13", "libnvrtc.so.12".
    ///   - wheels: folders of PyPI's packages below `site-packages/nvidia`: "cu13/lib", "cuda_nvrtc/lib".
    package static func toolkit(
        names: [String], wheels: [String], environment: CUDAEnvironment = .current
    ) -> [String] {
        var folders = environment.toolkits.flatMap { [$0 + "/lib64", $0 + "/lib"] }
        folders += [
            "/usr/lib/x86_64-linux-gnu", "/usr/lib/aarch64-linux-gnu", "/usr/lib64", "/usr/local/cuda/lib64",
            "/usr/local/nvidia/lib64", "/run/opengl-driver/lib",
        ]
        folders += children(of: "/usr/local", startingWith: "cuda-").map { "/usr/local/\($0)/lib64" }
        folders += sitePackages(environment).flatMap { site in wheels.map { "\(site)/nvidia/\($0)" } }
        return names + names.flatMap { name in folders.map { "\($0)/\(name)" } }
    }

    /// Folders of Python packages, found by looking at folders' names and without asking Python.
    private static func sitePackages(_ environment: CUDAEnvironment) -> [String] {
        var sites: [String] = []
        func add(_ folder: String, packages: String = "site-packages") {
            // "python3" itself is Debian's, whose packages are in dist-packages.
            for version in children(of: folder, startingWith: "python3") {
                sites.append("\(folder)/\(version)/\(packages)")
            }
        }
        for prefix in environment.prefixes { add(prefix + "/lib") }
        // The Pythons that a shell would find.
        for folder in environment.path where folder.hasSuffix("/bin") && FileSystem.exists(folder + "/python3") {
            add(folder.dropLast(4) + "/lib")
        }
        if let home = environment.home {
            add(home + "/.local/lib")
            for prefix in [".venv", "venv", "miniconda3", "miniforge3", "anaconda3"] { add("\(home)/\(prefix)/lib") }
        }
        if let folder = workingFolder { add(folder + "/.venv/lib") }
        if let home = environment.home {
            for version in children(of: home + "/.pyenv/versions", startingWith: "3") {
                add("\(home)/.pyenv/versions/\(version)/lib")
            }
        }
        for prefix in ["/usr/local/lib", "/usr/lib"] {
            add(prefix)
            add(prefix, packages: "dist-packages")
        }
        for name in children(of: "/opt", startingWith: "") { add("/opt/\(name)/lib") }
        var seen: Set<String> = []
        return sites.filter { seen.insert($0).inserted && FileSystem.exists($0) }
    }

    private static var workingFolder: String? {
        guard let path = getcwd(nil, 0) else { return nil }
        defer { free(path) }
        return String(cString: path)
    }

    /// Names in a folder, in reverse order: later versions first.
    private static func children(of folder: String, startingWith prefix: String) -> [String] {
        FileSystem.names(in: folder).filter { $0.hasPrefix(prefix) }.sorted(by: >)
    }
}
