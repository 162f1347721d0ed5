#include "launch/job.h"

#include <fmt/format.h>

#include <filesystem>
#include <fstream>
#include <sstream>

#include "launch/job_reader.h"
#include "worker/builtin/catalog.h"

namespace detente {
namespace {

namespace fs = std::filesystem;

// The places a library named in a job may be at, in order.
std::vector<fs::path> candidates(const std::string& library, const fs::path& job_dir,
                                 const fs::path& program_dir) {
    const bool is_path = library.find('/') != std::string::npos || library.ends_with(".so");
    if (is_path) return {job_dir / library};
    const std::string file = "lib" + library + ".so";
    return {program_dir / "examples" / file, program_dir / ".." / "lib" / "detente" / file,
            job_dir / file};
}

Result<std::string> find_library(const std::string& library, const std::string& job_file,
                                 const fs::path& job_dir, const fs::path& program_dir) {
    if (is_builtin(library)) return library;  // whether there is such a one it says when it is made
    std::vector<std::string> tried;
    for (const fs::path& candidate : candidates(library, job_dir, program_dir)) {
        std::error_code ignored;
        if (fs::is_regular_file(candidate, ignored)) {
            return fs::weakly_canonical(candidate).string();
        }
        tried.push_back(candidate.lexically_normal().string());
    }
    return fail(ErrorCode::bad_job,
                fmt::format("{}: model.library: no model library '{}'; looked for {}. Build it "
                            "first, or name its path",
                            job_file, library, fmt::join(tried, ", ")));
}

}  // namespace

Result<Job> parse_job(std::string_view text, const std::string& file,
                      const std::vector<std::string>& overrides) {
    try {
        JobReader reader(toml::parse(text, file), file);
        for (const std::string& assignment : overrides) reader.override_with(assignment);
        return reader.read();
    } catch (const toml::parse_error& error) {
        return fail(ErrorCode::bad_job,
                    fmt::format("{}:{}: not TOML: {}", file, error.source().begin.line,
                                error.description()));
    }
}

Result<Job> read_job(const std::string& path, const std::vector<std::string>& overrides,
                     const std::string& program_dir) {
    std::error_code ignored;
    if (fs::is_directory(path, ignored)) {
        return fail(ErrorCode::bad_job,
                    fmt::format("{}: expected a job file, found a folder", path));
    }
    std::ifstream stream(path);
    std::ostringstream text;
    if (!stream || !(text << stream.rdbuf())) {
        return fail(ErrorCode::bad_job,
                    fmt::format("{}: cannot read the job file: no such file, not readable, or "
                                "empty; a first one is examples/multifashion/multifashion.toml",
                                path));
    }
    auto job = parse_job(text.str(), path, overrides);
    if (!job) return job;
    const fs::path job_dir = fs::absolute(path).parent_path();
    const auto library = find_library(job->model_library, path, job_dir, program_dir);
    if (!library) return library.error();
    job->model_library = *library;
    if (!job->dataset_dir.empty()) {
        job->dataset_dir = (job_dir / job->dataset_dir).lexically_normal().string();
    }
    std::string& measured = job->sync_measured;
    if (!measured.empty()) measured = (job_dir / measured).lexically_normal().string();
    std::string& trace = job->simulate.compute.trace;
    if (!trace.empty()) trace = (job_dir / trace).lexically_normal().string();
    return job;
}

std::string program_folder() {
    std::error_code failed;
    const fs::path program = fs::read_symlink("/proc/self/exe", failed);
    return failed ? std::string(".") : program.parent_path().string();
}

}  // namespace detente
