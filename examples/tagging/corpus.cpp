#include "examples/tagging/corpus.h"

#include <zlib.h>

#include <array>
#include <cerrno>
#include <cstring>
#include <filesystem>
#include <memory>
#include <optional>
#include <string_view>

namespace detente::tagging {

namespace {

constexpr std::size_t kColumns = 8;  // FORM UPOS XPOS NER SRL DEPREL PRED ARGS
constexpr std::size_t kMaxBytes = std::size_t{1} << 28U;

Error bad_file(const std::string& where, const std::string& text) {
    return fail(ErrorCode::bad_dataset,
                where + ": " + text +
                    "; make the files again with examples/tagging/fetch_ewt and let data.dir "
                    "name their folder");
}

struct CloseGz {
    void operator()(gzFile_s* file) const { gzclose_r(file); }
};

Result<std::string> unpacked(const std::string& path) {
    std::error_code unknown;  // what it is, opening says
    if (!std::filesystem::exists(path, unknown)) return bad_file(path, "no such file");
    const std::unique_ptr<gzFile_s, CloseGz> file(gzopen(path.c_str(), "rb"));
    if (!file) return bad_file(path, std::string("cannot be read: ") + std::strerror(errno));
    std::string text;
    std::array<char, 1U << 16U> chunk;
    for (;;) {
        const int got = gzread(file.get(), chunk.data(), static_cast<unsigned>(chunk.size()));
        int code = Z_OK;
        const char* reason = gzerror(file.get(), &code);
        // Z_BUF_ERROR is told at the end only: the stream stops before its checksum.
        if (code == Z_BUF_ERROR) return bad_file(path, "the file is truncated");
        if (got < 0) return bad_file(path, std::string("the file is damaged: ") + reason);
        if (got == 0) return text;
        text.append(chunk.data(), static_cast<std::size_t>(got));
        if (text.size() > kMaxBytes) return bad_file(path, "more than 256 MiB of text");
    }
}

// "" if `tag` may follow `before` in IOB2, otherwise what is wrong with it.
std::string why_no_tag(std::string_view before, std::string_view tag) {
    if (tag == "O") return "";
    const bool inside = tag.starts_with("I-");
    if (tag.size() < 3 || (!inside && !tag.starts_with("B-"))) {
        return "expected O, B-… or I-…, found \"" + std::string(tag) + "\"";
    }
    if (!inside || (before.size() > 2 && before.substr(2) == tag.substr(2))) return "";
    return "\"" + std::string(tag) + "\" continues nothing, since \"" + std::string(before) +
           "\" is before it";
}

// Takes a file line by line.
class SentenceReader {
  public:
    explicit SentenceReader(std::string path) : path_(std::move(path)) {}

    std::optional<Error> take(std::string_view line) {
        ++line_;
        if (line.empty()) {
            end_sentence();
            return std::nullopt;
        }
        const std::size_t tabs = count_tabs(line);
        if (tabs == 0 && line.starts_with("# ")) return std::nullopt;
        if (tabs + 1 != kColumns) {
            return wrong("expected " + std::to_string(kColumns) +
                         " columns parted by tabs, found " + std::to_string(tabs + 1));
        }
        return add_token(line);
    }
    std::vector<Sentence> sentences() { return std::move(done_); }
    bool within_sentence() const { return open_.size() > 0; }
    Error wrong(const std::string& text) const {
        return bad_file(path_ + ":" + std::to_string(line_), text);
    }

  private:
    static std::size_t count_tabs(std::string_view line) {
        std::size_t tabs = 0;
        for (const char c : line) tabs += c == '\t' ? 1 : 0;
        return tabs;
    }

    std::optional<Error> add_token(std::string_view line) {
        std::array<std::string_view, kColumns> column;
        for (std::string_view& one : column) {
            one = line.substr(0, line.find('\t'));
            line.remove_prefix(std::min(line.size(), one.size() + 1));
        }
        const auto [word, pos, xpos, ner, role, deprel, pred, args] = column;
        if (word.empty() || pos.empty()) return wrong("its word or part of speech is empty");
        const auto check = [this](const std::vector<std::string>& before, std::string_view tag) {
            return why_no_tag(before.empty() ? std::string_view("O") : before.back(), tag);
        };
        if (const auto why = check(open_.ner, ner); !why.empty()) return wrong("NER: " + why);
        if (const auto why = check(open_.roles, role); !why.empty()) return wrong("SRL: " + why);
        if (role == "B-V") {
            if (open_.predicate >= 0) return wrong("a second predicate (B-V) in one sentence");
            open_.predicate = static_cast<int>(open_.size());
        }
        open_.words.emplace_back(word);
        open_.pos.emplace_back(pos);
        open_.ner.emplace_back(ner);
        open_.roles.emplace_back(role);
        return std::nullopt;
    }

    void end_sentence() {
        if (open_.size() == 0) return;
        done_.push_back(std::move(open_));
        open_ = {};
    }

    std::string path_;
    std::size_t line_ = 0;
    Sentence open_;
    std::vector<Sentence> done_;
};

}  // namespace

Result<std::vector<Sentence>> read_sentences(const std::string& path) {
    const auto text = unpacked(path);
    if (!text) return text.error();
    SentenceReader reader(path);
    std::string_view rest = *text;
    while (!rest.empty()) {
        const std::string_view line = rest.substr(0, rest.find('\n'));
        rest.remove_prefix(std::min(rest.size(), line.size() + 1));
        if (auto error = reader.take(line)) return *error;
    }
    if (reader.within_sentence()) {
        return reader.wrong(
            "expected an empty line after the last sentence, found the end of the "
            "file (it is cut off)");
    }
    auto sentences = reader.sentences();
    if (sentences.empty()) return bad_file(path, "holds no sentence");
    return sentences;
}

Result<Corpus> read_corpus(const std::string& dir, const std::string& split) {
    if (dir.empty()) {
        return bad_file("data.dir", "expected the folder of ewt.train.tsv.gz, found nothing set");
    }
    auto training = read_sentences(dir + "/ewt.train.tsv.gz");
    if (!training) return training.error();
    auto scored = read_sentences(dir + "/ewt." + split + ".tsv.gz");
    if (!scored) return scored.error();
    return Corpus{std::move(*training), std::move(*scored)};
}

}  // namespace detente::tagging
