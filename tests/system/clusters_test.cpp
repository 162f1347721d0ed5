// What lies in examples/clusters: its host files by mpirun and scripts/launch over ssh, and what
// the container's image is made of. The sbatch script is in launchers_test.cpp.
#include <algorithm>
#include <catch2/catch.hpp>
#include <cstdlib>
#include <filesystem>
#include <iterator>
#include <regex>
#include <sstream>

#include "launch/child_process.h"
#include "tests/system/daemons.h"

namespace detente::test {
namespace {

using std::chrono::seconds;

constexpr const char* kRoot = DETENTE_CLUSTERS "/../..";

// An example's host file, for the hosts that the tests' sshd stands for.
std::string hosts_of_example(const std::string& name) {
    std::string text = bytes_of_file(std::string(DETENTE_CLUSTERS "/") + name);
    for (const auto& [node, host] : std::vector<std::pair<std::string, std::string>>{
             {"node1", "one"}, {"node2", "two"}, {"node3", "three"}, {"10.1.0.2", "127.0.0.1"}}) {
        text = std::regex_replace(text, std::regex(node), host);
    }
    return text;
}

void check_trained(const TinyRun& run) {
    const auto summary = run.summary();
    REQUIRE_FALSE(summary.empty());
    CHECK_FALSE(summary.at("failed").as_bool());
    CHECK(summary.at("workers").as_array().size() == 3);
    CHECK_THAT(bytes_of_file(run.run_dir() + "/worker-2.log"),
               Catch::Contains("rank 5 of 6 is worker 2"));
}

TEST_CASE("clusters: the example's host file under mpirun starts the ranks over ssh") {
    if (const std::string lacks = SshHosts::missing_programs(); !lacks.empty()) {
        WARN("skipped: " << lacks);
        return;
    }
    const SshHosts hosts;
    REQUIRE(hosts.answers());
    for (const Mpi& mpi : all_mpis()) {
        if (skipped(mpi)) continue;
        const TinyRun run;
        std::string host_file = hosts_of_example("mpi_hosts");
        if (!mpi.open_mpi()) host_file = std::regex_replace(host_file, std::regex(" slots="), ":");
        write_file(run.folder() / "hosts", host_file);
        const std::string client = run.folder() / "client";
        write_file(client, "#!/bin/sh\nexec " + hosts.client() + " \"$@\"\n");
        std::filesystem::permissions(client, std::filesystem::perms::owner_all);
        std::vector<std::string> words = {"-n", "6"};
        const std::vector<std::string> over_ssh =
            mpi.open_mpi() ? std::vector<std::string>{"--hostfile", run.folder() / "hosts", "--mca",
                                                      "plm_rsh_agent", client}
                           : std::vector<std::string>{"-f",  run.folder() / "hosts", "-launcher",
                                                      "ssh", "-launcher-exec",       client};
        const std::vector<std::string> joins = {DETENTE_PROGRAM, "join",  run.job_file(), "--out",
                                                run.run_dir(),   "--set", "workers=3"};
        words.insert(words.end(), over_ssh.begin(), over_ssh.end());
        words.insert(words.end(), joins.begin(), joins.end());
        Launched job(run.folder(), words, mpi.program);
        const auto code = job.wait(seconds(60));
        CAPTURE(mpi.program, job.output());
        REQUIRE(code == 0);
        check_trained(run);
    }
}

TEST_CASE("clusters: the example's host file under the launch script") {
    if (const std::string lacks = SshHosts::missing_programs(); !lacks.empty()) {
        WARN("skipped: " << lacks);
        return;
    }
    const SshHosts hosts;
    REQUIRE(hosts.answers());
    const TinyRun run;
    write_file(run.folder() / "hosts", hosts_of_example("hosts"));
    Launched job(run.folder(),
                 {"--hosts", run.folder() / "hosts", "--program", DETENTE_PROGRAM, "--ssh",
                  hosts.client(), run.job_file(), "--out", run.run_dir(), "--set", "workers=3"},
                 DETENTE_SCRIPTS "/launch");
    const auto code = job.wait(seconds(60));
    CAPTURE(job.output());
    REQUIRE(code == 0);
    check_trained(run);
}

std::vector<std::string> words_of(const std::string& text) {
    std::istringstream stream(text);
    return {std::istream_iterator<std::string>(stream), std::istream_iterator<std::string>()};
}

bool has(const std::vector<std::string>& list, const std::string& word) {
    return std::find(list.begin(), list.end(), word) != list.end();
}

// Of libraries that a program or library names itself; what those need, their packages bring.
std::vector<std::string> linked_with(const std::string& file) {
    const auto dump = run_child({"readelf", "-d", "-W", file}, "", seconds(10));
    REQUIRE(dump.has_value());
    REQUIRE(dump->exit_code == 0);
    std::vector<std::string> libraries;
    const std::regex needed("\\(NEEDED\\).*\\[(.*)\\]");
    for (std::sregex_iterator found(dump->output.begin(), dump->output.end(), needed), end;
         found != end; ++found) {
        libraries.push_back((*found)[1]);
    }
    return libraries;
}

// The Debian packages that have a library of this name, "libfmt9 libfmt-dev".
std::vector<std::string> packages_of(const std::string& library) {
    const auto search = run_child({"dpkg-query", "-S", "*/" + library}, "", seconds(20));
    REQUIRE(search.has_value());
    return words_of(std::regex_replace(search->output, std::regex(":[^\n]*"), ""));
}

TEST_CASE("clusters: the container's image has what the program and its example are linked with") {
    const bool debian_12 = bytes_of_file("/etc/debian_version").starts_with("12");
    const std::string lacks = missing({{"readelf", "binutils"}, {"dpkg-query", "dpkg"}});
    if (!debian_12 || !lacks.empty()) {
        WARN("skipped: " << (lacks.empty() ? "packages are named so on Debian 12 only" : lacks));
        return;
    }
    const auto listed = words_of(bytes_of_file(DETENTE_CLUSTERS "/Containerfile"));
    REQUIRE(has(listed, "libzmq5"));
    // debian:12-slim has these; LibTorch is copied; a sanitizer's are in no image.
    const std::vector<std::string> there = {"libc6", "libgcc-s1", "libstdc++6"};
    const std::regex brought("lib(torch|c10|asan|ubsan|tsan).*");
    std::vector<std::string> files = {DETENTE_PROGRAM};
    const std::string example =
        std::filesystem::path(DETENTE_PROGRAM).parent_path() / "examples/libmultifashion.so";
    if (std::filesystem::exists(example)) files.push_back(example);
    for (const std::string& file : files) {
        for (const std::string& library : linked_with(file)) {
            if (std::regex_match(library, brought)) continue;
            const auto packages = packages_of(library);
            CAPTURE(file, library, packages);
            CHECK(std::any_of(packages.begin(), packages.end(), [&](const std::string& package) {
                return has(listed, package) || has(there, package);
            }));
        }
    }
}

TEST_CASE("clusters: what git ignores does not come into the container's image") {
    const auto kept_out = words_of(bytes_of_file(std::string(kRoot) + "/.dockerignore"));
    const auto ignored = words_of(bytes_of_file(std::string(kRoot) + "/.gitignore"));
    REQUIRE(ignored.size() >= 3);
    CHECK(has(kept_out, ".git"));
    for (std::string pattern : ignored) {  // "/build/" at the root, "x/" anywhere
        const bool anywhere = !pattern.starts_with('/');
        if (!anywhere) pattern.erase(0, 1);
        if (pattern.ends_with('/')) pattern.pop_back();
        CAPTURE(pattern);
        CHECK(has(kept_out, (anywhere ? "**/" : "") + pattern));
    }
}

}  // namespace
}  // namespace detente::test
