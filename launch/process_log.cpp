#include "launch/process_log.h"

#include <fmt/core.h>
#include <spdlog/sinks/basic_file_sink.h>
#include <spdlog/sinks/stdout_sinks.h>
#include <spdlog/spdlog.h>

namespace detente {

namespace {

constexpr const char* kPattern = "%Y-%m-%d %H:%M:%S.%e [%l] %v";

spdlog::level::level_enum level_of(LogLevel level) {
    switch (level) {
        case LogLevel::debug:
            return spdlog::level::debug;
        case LogLevel::information:
            return spdlog::level::info;
        case LogLevel::warning:
            return spdlog::level::warn;
        case LogLevel::error:
            return spdlog::level::err;
    }
    return spdlog::level::err;
}

}  // namespace

ProcessLog ProcessLog::to_standard_error() {
    auto sink = std::make_shared<spdlog::sinks::stderr_sink_mt>();
    auto logger = std::make_shared<spdlog::logger>("detente", sink);
    logger->set_pattern(kPattern);
    logger->flush_on(spdlog::level::info);
    return ProcessLog(std::move(logger));
}

Result<ProcessLog> ProcessLog::to_file(const std::string& path, const std::string& label) {
    try {
        auto file = std::make_shared<spdlog::sinks::basic_file_sink_mt>(path);
        auto screen = std::make_shared<spdlog::sinks::stderr_sink_mt>();
        screen->set_level(spdlog::level::warn);
        auto logger = std::make_shared<spdlog::logger>(
            "detente", spdlog::sinks_init_list{std::move(file), screen});
        logger->set_pattern(kPattern);
        screen->set_pattern(fmt::format("{} | [%l] %v", label));
        logger->flush_on(spdlog::level::info);
        return ProcessLog(std::move(logger));
    } catch (const spdlog::spdlog_ex& error) {
        return fail(ErrorCode::io, fmt::format("cannot write the log {}: {}", path, error.what()));
    }
}

void ProcessLog::write(LogLevel level, std::string_view text) const {
    logger_->log(level_of(level), spdlog::string_view_t(text.data(), text.size()));
}

LogSink ProcessLog::sink() const {
    return [log = *this](LogLevel level, std::string_view text) { log.write(level, text); };
}

}  // namespace detente
