#include "worker/collectives/collective_module.h"

#include <dlfcn.h>

#include <algorithm>
#include <filesystem>
#include <system_error>

namespace detente {

namespace {

Error refuse(const std::string& path, const std::string& text) {
    return fail(ErrorCode::not_supported, "module of collectives " + path + ": " + text);
}

}  // namespace

Result<std::unique_ptr<CollectiveBackend>> load_collectives(const std::string& module_path,
                                                            const CollectiveOptions& options) {
    std::error_code ignored;
    const std::string path = std::filesystem::absolute(module_path, ignored).string();
    if (!std::filesystem::is_regular_file(path, ignored)) {
        return refuse(path,
                      "no such file; it is built where its library was found when this program was "
                      "configured (CUDA with NCCL, Open MPI, MPICH)");
    }
    dlerror();
    void* library = dlopen(path.c_str(), RTLD_LOCAL | RTLD_NOW);
    if (library == nullptr) {
        const char* text = dlerror();
        return refuse(path, std::string("cannot be loaded: ") + (text ? text : "no reason given") +
                                "; build it again on this machine");
    }
    const auto* entry = static_cast<const CollectiveEntry*>(dlsym(library, kCollectiveSymbol));
    if (entry == nullptr || entry->create == nullptr) {
        return refuse(path, std::string("is none: it does not export ") + kCollectiveSymbol);
    }
    if (entry->abi != kCollectiveAbi) {
        return refuse(path, "was built for interface " + std::to_string(entry->abi) +
                                ", this program has " + std::to_string(kCollectiveAbi) +
                                "; build both again");
    }
    Error error;
    std::unique_ptr<CollectiveBackend> backend(entry->create(options, error));
    if (backend) return backend;
    if (error.text.empty()) return refuse(path, "made no backend and gave no reason");
    return error;
}

std::string option_of(const CollectiveOptions& options, const std::string& name,
                      const std::string& by_default) {
    for (const auto& [key, value] : options.options) {
        if (key == name) return value;
    }
    return by_default;
}

Result<void> check_options(const CollectiveOptions& options,
                           const std::vector<std::string>& known) {
    for (const auto& [key, value] : options.options) {
        if (std::find(known.begin(), known.end(), key) != known.end()) continue;
        std::string text = "unknown option '" + key + "' of a module of collectives; there are";
        for (const std::string& name : known) text += " " + name;
        return fail(ErrorCode::not_supported, text);
    }
    return {};
}

}  // namespace detente
