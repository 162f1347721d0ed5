// What both pages are made of.
#pragma once

#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "common/books.h"
#include "launch/report/charts.h"
#include "launch/report/run_record.h"

namespace detente {

class Page {
  public:
    explicit Page(std::string_view title);
    // Texts are escaped here; drawings are not.
    void heading(std::string_view text);
    void paragraph(std::string_view text, std::string_view kind = "");
    // Nothing, if there is no drawing; `caption` says what one sees.
    void figure(const std::string& drawing, std::string_view caption);
    // Large figures with what they are, side by side.
    void figures(const std::vector<std::pair<std::string, std::string>>& value_and_meaning);
    void table(const std::vector<std::string>& header,
               const std::vector<std::vector<std::string>>& rows);
    // Shown when it is opened.
    void folded(std::string_view title, std::string_view text);
    void remarks(const std::vector<std::string>& texts);
    std::string finish();

  private:
    std::string out_;
};

// "98.4 %"
std::string percent_text(double share);
// Names and colours of what becomes of an update, in the order of outcomes_of().
const std::vector<std::pair<std::string, std::string>>& outcome_parts();
std::vector<double> outcomes_of(const Books& books);
double share_applied(const Books& books);  // of what is settled; 1 where nothing is

// ---- points of a run's curves ----
enum class Against { seconds, updates };
std::vector<Point> loss_points(const RunRecord& run, std::size_t task, Against against);
std::vector<Point> mean_loss_points(const RunRecord& run, Against against);
std::string axis_title(Against against, bool virtual_time);
double mean_accuracy(const RunRecord& run);  // NaN = not evaluated

// A section of the page of one run; nothing, if it did not say.
void show_step_times(Page& page, const RunRecord& run);

}  // namespace detente
