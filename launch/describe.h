// What a launcher must know of a model, without loading it: a short-lived process of the same
// program loads the model library, prints the description, and ends. Servers and the coordinator
// thus never load a model library.
#pragma once

#include <optional>
#include <string>

#include "common/config.h"
#include "common/model_description.h"
#include "common/result.h"
#include "worker/engine.h"

namespace detente {

// The part of a job that an engine is made from; without a log folder.
EngineOptions engine_options_of(const Job& job);

// Of a model library's file, so that hosts can compare theirs; empty for a built-in model.
Result<std::string> library_checksum(const std::string& library);

// Describes the job's model in a process of its own. The child's error comes through as it is, code
// and text; bad_model if it crashed (with the end of what it printed), timed_out if it did not end
// (a dataset on a slow disk: raise deadlines.start_s, the default deadline). With `device` it is
// tried there, too: not_supported.
Result<ModelDescription> describe_in_child(const Job& job, const std::string& device = "cpu");

// The child's side: `detente describe --resolved-job` reads a resolved job on its standard input,
// and prints the description, or an error that error_from_json() reads, as one line of JSON.
std::string to_json(const Error& error);
// Nothing: the text is no error of ours.
std::optional<Error> error_from_json(const std::string& text);

}  // namespace detente
