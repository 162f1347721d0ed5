#include "launch/progress.h"

#include <fmt/core.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include <algorithm>
#include <cmath>

namespace detente {

namespace {
constexpr Nanos kWindow = std::chrono::seconds(10);
constexpr double kTellFrom = 0.01;  // share done before a time left is told
}  // namespace

ProgressFigures ProgressMeter::measure(const ClusterView& view) {
    ProgressFigures figures;
    const Sample now{view.now, total_samples(view), batches_done(view)};
    while (!window_.empty() && now.at - window_.front().at > kWindow) {
        window_.erase(window_.begin());
    }
    figures.steps = total_steps(view);
    figures.losses = mean_losses(view);
    figures.staleness = summarise(view);
    figures.done = now.done;
    const Books books = total_books(view);
    const std::uint64_t judged = books.applied + books.rejected;
    if (judged > 0) {
        figures.accepted = static_cast<double>(books.applied) / static_cast<double>(judged);
    }
    if (!window_.empty() && now.at > window_.front().at) {
        const Sample& before = window_.front();
        const double elapsed = std::chrono::duration<double>(now.at - before.at).count();
        const std::uint64_t samples = now.samples - std::min(now.samples, before.samples);
        figures.samples_per_s = static_cast<double>(samples) / elapsed;
        const double speed = (now.done - before.done) / elapsed;
        if (now.done >= kTellFrom && speed > 0) {
            figures.left = std::chrono::seconds(std::llround(std::max(0.0, 1 - now.done) / speed));
        }
    }
    window_.push_back(now);
    return figures;
}

std::string with_commas(std::uint64_t number) {
    std::string digits = std::to_string(number);
    for (std::size_t i = digits.size(); i > 3;) {
        i -= 3;
        digits.insert(i, ",");
    }
    return digits;
}

std::string duration_text(std::chrono::seconds duration) {
    const auto total = duration.count();
    if (total < 3600) return fmt::format("{}:{:02}", total / 60, total % 60);
    return fmt::format("{}:{:02}:{:02}", total / 3600, total / 60 % 60, total % 60);
}

namespace {

// Characters of UTF-8 text.
std::size_t width_of(const std::string& text) {
    return static_cast<std::size_t>(std::count_if(text.begin(), text.end(), [](char c) {
        return (static_cast<unsigned char>(c) & 0xC0U) != 0x80U;
    }));
}

// The parts of a progress line, each with the separator before it.
struct LineParts {
    std::string speed;
    std::string losses;
    std::string staleness;
    std::string accepted;
    std::string done;

    std::string text() const { return speed + losses + staleness + accepted + done; }
};

LineParts long_parts(const ProgressFigures& figures, const std::vector<std::string>& tasks) {
    LineParts parts;
    parts.speed = fmt::format("step {} · {} samples/s", with_commas(figures.steps),
                              with_commas(static_cast<std::uint64_t>(figures.samples_per_s)));
    if (!figures.losses.empty()) parts.losses = " · loss";
    for (std::size_t i = 0; i < figures.losses.size() && i < tasks.size(); ++i) {
        parts.losses += fmt::format(" {} {:.4f}", tasks[i], figures.losses[i]);
    }
    parts.staleness =
        fmt::format(" · staleness p50 {} p99 {}", figures.staleness.p50, figures.staleness.p99);
    parts.accepted = fmt::format(" · accepted {:.1f} %", 100 * figures.accepted);
    parts.done = fmt::format(" · {:.0f} % done", 100 * figures.done);
    if (figures.left) parts.done += fmt::format(" · {} left", duration_text(*figures.left));
    return parts;
}

// The same figures in fewer characters: two tasks and all else fit into a terminal's 80 columns.
LineParts short_parts(const ProgressFigures& figures, const std::vector<std::string>& tasks) {
    LineParts parts;
    parts.speed = fmt::format("step {} · {}/s", with_commas(figures.steps),
                              with_commas(static_cast<std::uint64_t>(figures.samples_per_s)));
    for (std::size_t i = 0; i < figures.losses.size() && i < tasks.size(); ++i) {
        parts.losses +=
            fmt::format("{}{} {:.2f}", i == 0 ? " · " : " ", tasks[i], figures.losses[i]);
    }
    parts.staleness = fmt::format(" · stale {}/{}", figures.staleness.p50, figures.staleness.p99);
    // Rounded down: 100 % says that nothing was rejected.
    parts.accepted = fmt::format(" · ok {:.0f} %", std::floor(100 * figures.accepted + 1e-9));
    // The time left says it better than the share that is done.
    parts.done = figures.left ? fmt::format(" · {} left", duration_text(*figures.left))
                              : fmt::format(" · {:.0f} % done", 100 * figures.done);
    return parts;
}

}  // namespace

std::string progress_line(const ProgressFigures& figures, const std::vector<std::string>& tasks,
                          std::size_t columns) {
    LineParts parts = long_parts(figures, tasks);
    if (width_of(parts.text()) <= columns) return parts.text();
    parts = short_parts(figures, tasks);
    for (std::string* spare : {&parts.staleness, &parts.accepted, &parts.losses}) {
        if (width_of(parts.text()) <= columns) break;
        spare->clear();
    }
    return parts.text();
}

std::string waiting_line(const ClusterView& view) {
    std::string line;
    std::size_t waiting = 0;
    for (const ProcessView& process : view.processes) {
        const bool waits = view.stage == Stage::gathering ? process.phase == Phase::missing
                                                          : process.phase == Phase::preparing;
        if (!waits || ++waiting > 3) continue;
        line += (line.empty() ? "" : ", ") + to_string(process.node);
        if (!process.last.activity.empty()) line += " " + process.last.activity;
    }
    if (waiting > 3) line += fmt::format(" and {} more", waiting - 3);
    return waiting == 0 ? std::string(name_of(view.stage)) : "waiting for " + line;
}

namespace {

// Cut to `columns` characters (UTF-8), so that a rewritten line stays one line.
std::string cut(const std::string& text, std::size_t columns) {
    std::size_t characters = 0;
    for (std::size_t i = 0; i < text.size(); ++i) {
        const bool first_byte = (static_cast<unsigned char>(text[i]) & 0xC0U) != 0x80U;
        if (first_byte && characters++ == columns) return text.substr(0, i);
    }
    return text;
}

}  // namespace

void Screen::erase() {
    if (!terminal_ || shown_.empty()) return;
    std::fputs("\r\033[K", out_);
}

void Screen::line(const std::string& text) {
    erase();
    std::fprintf(out_, "%s\n", text.c_str());
    if (terminal_) std::fputs(shown_.c_str(), out_);
    std::fflush(out_);
}

std::size_t Screen::columns() const {
    if (!terminal_) return std::string::npos;
    winsize size{};
    const bool known = ::ioctl(::fileno(out_), TIOCGWINSZ, &size) == 0 && size.ws_col > 1;
    return known ? size.ws_col - 1U : 120U;
}

void Screen::progress(const std::string& text, Time now) {
    if (!terminal_) {
        if (last_plain_ && now - *last_plain_ < kPlainInterval) return;
        last_plain_ = now;
        return line(text);
    }
    erase();
    shown_ = cut(text, columns());
    std::fputs(shown_.c_str(), out_);
    std::fflush(out_);
}

void Screen::end_progress() {
    if (terminal_ && !shown_.empty()) std::fputs("\n", out_);
    shown_.clear();
    std::fflush(out_);
}

}  // namespace detente
