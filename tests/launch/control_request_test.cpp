// What `detente control` may ask of a running job, and how it travels.
#include "launch/control_request.h"

#include <catch2/catch.hpp>

#include "launch/job.h"

namespace detente {
namespace {

const char* const kRunningJob = R"(name = "small"
workers = 2
[model]
library = "x"
[rule]
name = "adam"
learning_rate = 0.1
[staleness]
policy = "bounded_reject"
tau_max = 8
)";

std::string refused(const std::vector<std::string>& set) {
    const auto made = apply_to(kRunningJob, {set, "me"});
    REQUIRE(made.has_error());
    CHECK(made.error().code == ErrorCode::bad_job);
    return made.error().text;
}

}  // namespace

TEST_CASE("control: a policy and its parameters take the place of the running job's") {
    const auto made =
        apply_to(kRunningJob, {{"staleness.policy=hinge", "staleness.a=3", "staleness.b=2"}, "me"});
    REQUIRE(made.has_value());
    CHECK(made->change.policy == "hinge");
    CHECK(made->change.by == "me");
    const std::vector<std::pair<std::string, std::string>> parameters = made->change.parameters;
    CHECK(std::find(parameters.begin(), parameters.end(),
                    std::pair<std::string, std::string>("a", "3")) != parameters.end());
    CHECK(made->job.policy.name == "hinge");
    // The next change starts from there.
    const auto next = apply_to(to_toml(made->job), {{"staleness.b=5"}, "me"});
    REQUIRE(next.has_value());
    CHECK(next->change.policy == "hinge");
}

TEST_CASE("control: a parameter alone changes that of the policy in force") {
    const auto made = apply_to(kRunningJob, {{"staleness.tau_max=2"}, "me"});
    REQUIRE(made.has_value());
    CHECK(made->change.policy == "bounded_reject");
    REQUIRE(made->change.parameters.size() == 1);
    CHECK(made->change.parameters[0].second == "2");
}

TEST_CASE("control: admission is asked for alone, or together with a policy and its parameters") {
    const auto alone = apply_to(kRunningJob, {{"staleness.admission=step"}, "me"});
    REQUIRE(alone.has_value());
    CHECK(alone->change.policy == "bounded_reject");
    CHECK(alone->change.admission == Admission::step);
    CHECK(alone->job.admission == Admission::step);
    // The next change starts from there, and asks for none.
    const auto next = apply_to(to_toml(alone->job), {{"staleness.tau_max=2"}, "me"});
    REQUIRE(next.has_value());
    CHECK_FALSE(next->change.admission);
    CHECK(next->job.admission == Admission::step);
    const auto both =
        apply_to(to_toml(alone->job),
                 {{"staleness.policy=hinge", "staleness.a=3", "staleness.admission=block"}, "me"});
    REQUIRE(both.has_value());
    CHECK(both->change.policy == "hinge");
    CHECK(both->change.admission == Admission::block);
}

TEST_CASE(
    "control: a policy that decides steps and admission per block are refused by both names") {
    const std::string together = refused({"staleness.policy=bsp", "staleness.admission=block"});
    CHECK_THAT(together, Catch::Contains("staleness.admission = \"block\"") &&
                             Catch::Contains("staleness.policy = 'bsp'"));
    const auto running = apply_to(kRunningJob, {{"staleness.policy=bsp"}, "me"});
    REQUIRE(running.has_value());
    const auto alone = apply_to(to_toml(running->job), {{"staleness.admission=block"}, "me"});
    REQUIRE(alone.has_error());
    CHECK(alone.error().text == together);
    CHECK_THAT(refused({"staleness.admission=stepp"}), Catch::Contains("step"));
}

TEST_CASE("control: what a job file would refuse is refused with the same words") {
    CHECK(refused({"staleness.policy=hinges"}).find("did you mean 'hinge'") != std::string::npos);
    CHECK(refused({"staleness.tau_max=-1"}).find("tau_max") != std::string::npos);
    CHECK(refused({"staleness.policy=async", "staleness.tau=1"}).find("tau") != std::string::npos);
    // delayed_nesterov brings its own momentum.
    CHECK(refused({"staleness.policy=delayed_nesterov"}).find("adam") != std::string::npos);
}

TEST_CASE("control: what README shows works on README's job and its other example is refused") {
    const std::string job = std::string(kRunningJob) +
                            "[[staleness.for]]\npattern = \"heads.*\"\n" + "policy = \"async\"\n";
    const auto made = apply_to(job, {{"staleness.policy=polynomial", "staleness.a=1"}, "me"});
    REQUIRE(made.has_value());
    CHECK(made->change.policy == "polynomial");
    CHECK(made->job.policy_for.size() == 1);
    const auto parameter = apply_to(job, {{"staleness.tau_max=4"}, "me"});
    REQUIRE(parameter.has_value());
    CHECK(parameter->change.policy == "bounded_reject");
    const auto averages = apply_to(job, {{"staleness.policy=fedbuff", "staleness.k=4"}, "me"});
    REQUIRE(averages.has_error());
    CHECK(averages.error().text.find("decides whole steps") != std::string::npos);
    CHECK(apply_to(job, {{"staleness.policy=dana_zero"}, "me"}).has_error());
}

TEST_CASE("control: other keys than the policy's are refused, saying what to do instead") {
    for (const char* set :
         {"workers=3", "rule.learning_rate=1", "staleness.for.0.policy=async", "staleness"}) {
        INFO(set);
        CHECK(refused({set}).find("--resume") != std::string::npos);
    }
}

TEST_CASE("control: requests and answers survive the way, and garbage is refused") {
    const ControlRequest request{{"staleness.policy=ssp", "staleness.s=\"2\""}, "me \"there\"\n"};
    const auto again = control_request_of(to_json(request));
    REQUIRE(again.has_value());
    CHECK(again->set == request.set);
    CHECK(again->by == request.by);
    CHECK(again->drain.empty());
    const auto drain = control_request_of(to_json(ControlRequest{{}, "me", "worker:2"}));
    REQUIRE(drain.has_value());
    CHECK(drain->drain == "worker:2");
    for (const char* garbage : {"", "{}", "[]", "{\"set\":[],\"by\":\"me\"}", "{\"set\":[1]}",
                                "{\"set\":\"a\",\"by\":\"me\"}",
                                "{\"set\":[\"a=1\"],\"by\":\"me\",\"drain\":\"worker:1\"}",
                                "{\"set\":[],\"by\":\"me\",\"drain\":1}"}) {
        CHECK(control_request_of(garbage).has_error());
    }
    CHECK(*control_answer_of(to_json(Result<std::string>("decision 1:4"))) == "decision 1:4");
    const auto failed =
        control_answer_of(to_json(Result<std::string>(fail(ErrorCode::bad_job, "no \"x\""))));
    REQUIRE(failed.has_error());
    CHECK(failed.error().code == ErrorCode::bad_job);
    CHECK(failed.error().text == "no \"x\"");
    CHECK(control_answer_of("<html>").error().code == ErrorCode::bad_message);
}

}  // namespace detente
