#include "launch/ledger_files.h"

#include <fmt/format.h>

#include <algorithm>
#include <filesystem>

namespace detente {

namespace fs = std::filesystem;

Result<std::vector<std::string>> ledger_files(const std::string& folder, Role role) {
    const std::string prefix = fmt::format("{}-", name_of(role));
    std::vector<std::string> files;
    std::error_code failed;
    for (fs::directory_iterator at(folder, failed), end; !failed && at != end;
         at.increment(failed)) {
        const std::string name = at->path().filename().string();
        if (at->path().extension() == ".ledger" && name.starts_with(prefix)) {
            files.push_back(at->path().string());
        }
    }
    if (failed) {
        return fail(ErrorCode::io,
                    fmt::format("{}: {}; expected a run directory (like runs/latest)", folder,
                                failed.message()));
    }
    std::sort(files.begin(), files.end());
    return files;
}

}  // namespace detente
