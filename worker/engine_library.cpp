#include "worker/engine_library.h"

#include <dlfcn.h>

#include <filesystem>
#include <system_error>

#include "worker/builtin/catalog.h"

namespace detente {

namespace {

Error refuse(const std::string& path, const std::string& text) {
    return fail(ErrorCode::bad_model, "model library " + path + ": " + text);
}

std::string last_dl_error() {
    const char* text = dlerror();
    return text ? text : "no reason given";
}

Result<std::unique_ptr<Engine>> open_library(const std::string& library_path,
                                             const EngineOptions& options) {
    std::error_code ignored;
    // Absolute, or dlopen would search the system's library path for a bare name.
    const std::string path = std::filesystem::absolute(library_path, ignored).string();
    if (!std::filesystem::is_regular_file(path, ignored)) {
        return refuse(path,
                      "no such file; build the model (detente_add_model in its CMakeLists.txt) or "
                      "correct model.library in the job file");
    }
    dlerror();
    void* library = dlopen(path.c_str(), RTLD_LOCAL | RTLD_NOW);
    if (!library) {
        return refuse(path, "cannot be loaded: " + last_dl_error() +
                                "; build it again on this machine (`detente doctor` says which "
                                "LibTorch is found)");
    }
    const auto* entry = static_cast<const EngineEntry*>(dlsym(library, kEngineSymbol));
    if (!entry) {
        return refuse(path, std::string("is no model library: it does not export ") +
                                kEngineSymbol +
                                "; put DETENTE_MODEL(YourModel) into one of its sources");
    }
    if (entry->abi != kEngineAbi) {
        return refuse(path, "was built for engine interface " + std::to_string(entry->abi) +
                                ", this program has " + std::to_string(kEngineAbi) +
                                "; build it again against this version of Détente");
    }
    if (!entry->create) return refuse(path, "its entry has no create function; build it again");
    Error error;
    std::unique_ptr<Engine> engine(entry->create(options, error));
    if (engine) return engine;
    if (error.text.empty()) return refuse(path, "made no engine and gave no reason");
    return error;
}

}  // namespace

Result<std::unique_ptr<Engine>> load_engine(const std::string& library_path,
                                            const EngineOptions& options) {
    auto engine = is_builtin(library_path) ? make_builtin(library_path, options)
                                           : open_library(library_path, options);
    if (engine && options.representation && !(*engine)->at_representation()) {
        return fail(ErrorCode::bad_job,
                    "conflict.space = \"representation\": model " + library_path +
                        " gives no gradients at a trunk's output, as LibTorch models that call "
                        "heads() do; set \"parameters\"");
    }
    return engine;
}

}  // namespace detente
