#include "launch/checkpoint_services.h"

#include <fmt/core.h>

#include "common/safetensors.h"

namespace detente {

CheckpointReply merge_slices(const CheckpointRequest& request, const Plan& plan,
                             const ModelDescription& model, CheckpointOrigin origin) {
    CheckpointReply reply{
        .number = request.number, .file = "", .code = {}, .error = "", .method_state = {}};
    origin.number = request.number;
    origin.methods = request.methods;
    const Result<Manifest> merged = merge_checkpoint(request.directory, plan, model, origin);
    if (merged.has_error()) {
        reply.code = merged.error().code;
        reply.error = merged.error().text;
    } else {
        reply.file = request.directory + "/model.safetensors";
    }
    return reply;
}

Result<void> load_weights(Engine& engine, const std::string& path) {
    const auto file = SafetensorsFile::open(path);
    if (file.has_error()) return file.error();
    const ModelDescription& model = engine.description();
    for (std::size_t i = 0; i < model.tensors.size(); ++i) {
        const SafetensorsFile::Tensor* tensor = file->find(model.tensors[i].name);
        const std::uint64_t bytes = model.tensors[i].elements() * sizeof(float);
        if (tensor == nullptr || tensor->entry.bytes() != bytes) {
            return fail(ErrorCode::bad_checkpoint,
                        fmt::format("{} has no tensor {} of {} bytes: it is of another model", path,
                                    model.tensors[i].name, bytes));
        }
        const auto values = file->read(*tensor);
        if (values.has_error()) return values.error();
        engine.load(i, 0, values->bytes);
    }
    return {};
}

}  // namespace detente
