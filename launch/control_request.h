// What `detente control RUN --set …` or `--drain worker:2` asks of a running job, on its way to the
// coordinator: a POST to /control on the run's HTTP address, which is bound to loopback. Who may
// ask is who can read RUN/control_token (mode 600), sent along as the header kTokenHeader: another
// user of the machine cannot read it, a page in a browser neither reads it nor may set the header.
//
// Chosen over a connection to the control port: that speaks for a rank of the job, in the wire
// format of one build, from any host that can reach it.
//
// Pure functions.
#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "common/config.h"
#include "common/messages.h"
#include "common/result.h"

namespace detente {

inline constexpr const char* kControlPath = "/control";
inline constexpr const char* kTokenHeader = "X-Detente-Token";

struct ControlRequest {
    std::vector<std::string> set;  // "staleness.policy=ssp", as after --set
    std::string by;                // "user@host, process 123"
    std::string drain;             // "worker:2": it leaves, the job goes on; then `set` is empty
};
std::string to_json(const ControlRequest& request);
// bad_message: no such request.
Result<ControlRequest> control_request_of(std::string_view json);

struct ControlChange {
    Job job;  // as it is afterwards
    PolicyChange change;
};
// What the request makes of the job that runs. bad_job, as for a job file: an unknown key or value,
// what does not go together; a key that a running job cannot change.
Result<ControlChange> apply_to(const std::string& job_text, const ControlRequest& request);

// The answer: what was decided, or why not. ok: "decision 1:42"; failed: name of the code and text.
std::string to_json(const Result<std::string>& answer);
Result<std::string> control_answer_of(std::string_view json);

}  // namespace detente
