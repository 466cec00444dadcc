// NVRTC's functions, which pass everything on to the real NVRTC but ask it for PTX where machine code is asked for: the emulated
// driver loads PTX. The real library is the one that EMULATOR_NVRTC names, or the loader's.

#include <dlfcn.h>

#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <string>
#include <vector>

#define EXPORT extern "C" __attribute__((visibility("default")))

namespace {

void *real_library() {
    static void *library = [] {
        const char *named = getenv("EMULATOR_NVRTC");
        std::vector<std::string> names = {"libnvrtc.so.13", "libnvrtc.so.12", "libnvrtc.so"};
        if (named) names = {named};
        for (const std::string &name : names) {
            if (void *found = dlopen(name.c_str(), RTLD_NOW | RTLD_LOCAL)) {
                // It opens its headers by name alone, which succeeds where they are open already.
                const size_t slash = name.rfind('/');
                if (slash != std::string::npos) {
                    const std::string folder = name.substr(0, slash);
                    for (const char *builtins : {"libnvrtc-builtins.so.13.0", "libnvrtc-builtins.so.12.9"}) {
                        dlopen((folder + "/" + builtins).c_str(), RTLD_NOW | RTLD_GLOBAL);
                    }
                }
                return found;
            }
        }
        fprintf(stderr, "emulator: no NVRTC: %s; name it in EMULATOR_NVRTC\n", dlerror());
        abort();
    }();
    return library;
}

template <class Function>
Function *real(const char *name) {
    void *address = dlsym(real_library(), name);
    if (!address) {
        fprintf(stderr, "emulator: NVRTC has no %s\n", name);
        abort();
    }
    return reinterpret_cast<Function *>(address);
}

}  // namespace

EXPORT const char *nvrtcGetErrorString(int status) { return real<const char *(int)>("nvrtcGetErrorString")(status); }

EXPORT int nvrtcVersion(int *major, int *minor) { return real<int(int *, int *)>("nvrtcVersion")(major, minor); }

EXPORT int nvrtcGetNumSupportedArchs(int *count) { return real<int(int *)>("nvrtcGetNumSupportedArchs")(count); }

EXPORT int nvrtcGetSupportedArchs(int *all) { return real<int(int *)>("nvrtcGetSupportedArchs")(all); }

EXPORT int nvrtcCreateProgram(
    void **program, const char *source, const char *name, int headers, const char *const *texts, const char *const *names) {
    return real<int(void **, const char *, const char *, int, const char *const *, const char *const *)>(
        "nvrtcCreateProgram")(program, source, name, headers, texts, names);
}

EXPORT int nvrtcDestroyProgram(void **program) { return real<int(void **)>("nvrtcDestroyProgram")(program); }

EXPORT int nvrtcCompileProgram(void *program, int count, const char *const *options) {
    std::vector<std::string> own;
    for (int i = 0; i < count; i++) {
        std::string option = options[i];
        const size_t machine = option.find("sm_");
        if (option.find("arch") != std::string::npos && machine != std::string::npos) {
            option.replace(machine, 3, "compute_");
        }
        // Of the assembler's figures there are none.
        if (option.find("ptxas") == std::string::npos) own.push_back(option);
    }
    own.push_back("-lineinfo");
    // NVRTC 13's cache asks the driver, and takes the emulated one for a real one.
    int major = 0, minor = 0;
    nvrtcVersion(&major, &minor);
    if (major >= 13) own.push_back("--no-cache");
    std::vector<const char *> pointers;
    for (const std::string &option : own) pointers.push_back(option.c_str());
    return real<int(void *, int, const char *const *)>("nvrtcCompileProgram")(
        program, (int)pointers.size(), pointers.data());
}

EXPORT int nvrtcGetProgramLogSize(void *program, size_t *bytes) {
    return real<int(void *, size_t *)>("nvrtcGetProgramLogSize")(program, bytes);
}

EXPORT int nvrtcGetProgramLog(void *program, char *log) {
    return real<int(void *, char *)>("nvrtcGetProgramLog")(program, log);
}

EXPORT int nvrtcGetPTXSize(void *program, size_t *bytes) { return real<int(void *, size_t *)>("nvrtcGetPTXSize")(program, bytes); }

EXPORT int nvrtcGetPTX(void *program, char *text) { return real<int(void *, char *)>("nvrtcGetPTX")(program, text); }

EXPORT int nvrtcGetCUBINSize(void *program, size_t *bytes) {
    return real<int(void *, size_t *)>("nvrtcGetPTXSize")(program, bytes);
}

EXPORT int nvrtcGetCUBIN(void *program, char *text) { return real<int(void *, char *)>("nvrtcGetPTX")(program, text); }
