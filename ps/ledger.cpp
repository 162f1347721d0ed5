#include "ps/ledger.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <cstring>

#include "common/checksum.h"
#include "common/invariant.h"
#include "schemas/ledger_generated.h"

namespace detente {
namespace {

constexpr std::array<char, 8> kMagic = {'D', 'T', 'N', 'T', 'L', 'G', 'R', '1'};
constexpr std::size_t kFrameBytes = sizeof(ledger::Chunk);
static_assert(kFrameBytes == 16);
constexpr std::uint32_t kMostChunkBytes = 64U << 20U;  // larger is no chunk of ours

// Fills in the frame in front of a chunk's bytes.
void seal(std::vector<std::byte>& chunk, std::uint32_t entries) {
    const auto length = static_cast<std::uint32_t>(chunk.size() - kFrameBytes);
    const ledger::Chunk unsealed(0, length, entries);
    std::memcpy(chunk.data(), &unsealed, kFrameBytes);
    const std::uint64_t checksum = checksum_of(std::span(chunk).subspan(sizeof(std::uint64_t)));
    const ledger::Chunk sealed(checksum, length, entries);
    std::memcpy(chunk.data(), &sealed, kFrameBytes);
}

std::vector<std::byte> encoded_header(const LedgerOrigin& origin) {
    flatbuffers::FlatBufferBuilder builder;
    builder.Finish(ledger::CreateHeaderDirect(
        builder, kLedgerEncoding, static_cast<std::uint8_t>(origin.node.role), origin.node.index,
        origin.incarnation.value, origin.generation.value, origin.job.c_str(), origin.build.c_str(),
        origin.machine.c_str()));
    std::vector<std::byte> frame(kFrameBytes + builder.GetSize());
    std::memcpy(frame.data() + kFrameBytes, builder.GetBufferPointer(), builder.GetSize());
    seal(frame, 0);
    const auto magic = std::as_bytes(std::span(kMagic));
    frame.insert(frame.begin(), magic.begin(), magic.end());
    return frame;
}

Error no_ledger(const std::string& path, const std::string& why) {
    return fail(ErrorCode::bad_message, fmt::format("{} is no ledger: {}", path, why));
}

std::string text_of(const flatbuffers::String* text) {
    return text == nullptr ? std::string() : text->str();
}

}  // namespace

std::string ledger_file_name(NodeId node, Incarnation incarnation) {
    return fmt::format("{}-{}.{}.ledger", name_of(node.role), node.index, incarnation.value);
}

Result<std::unique_ptr<LedgerWriter>> LedgerWriter::create(const std::string& path,
                                                           const LedgerOrigin& origin) {
    constexpr int kMode = 0644;
    OpenFile file(::open(path.c_str(), O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, kMode));
    if (file.get() < 0) return io_error("create", path, errno);
    const Result<std::uint64_t> size = file_size(file, path);
    if (size.has_error()) return size.error();
    // The lock meets a writer that is alive (and has perhaps written nothing yet), the size one
    // that was. File systems without locks say so with other numbers and go without.
    const bool taken = ::flock(file.get(), LOCK_EX | LOCK_NB) != 0 && errno == EWOULDBLOCK;
    if (taken || *size > 0) {
        return fail(ErrorCode::io,
                    fmt::format("{} already belongs to another process's ledger ({} bytes{}): "
                                "choose another --out, or a new incarnation",
                                path, *size, taken ? ", being written" : ""));
    }
    std::unique_ptr<LedgerWriter> writer(new LedgerWriter(path, std::move(file)));
    const std::vector<std::byte> header = encoded_header(origin);
    const auto written = write_whole(writer->file_, header, path);
    if (written.has_error()) {
        writer->failed_ = true;
        return written.error();
    }
    writer->file_bytes_ = header.size();
    return writer;
}

LedgerWriter::~LedgerWriter() {
    if (!failed_ && chunk_entries_ > 0) static_cast<void>(write_chunk());
}

void LedgerWriter::begin_chunk() {
    chunk_.assign(kFrameBytes, std::byte{0});
    chunk_entries_ = 0;
    deltas_ = {};
}

Result<void> LedgerWriter::append(const LedgerEntry& entry) {
    if (failed_) {
        ++discarded_;
        return {};
    }
    encode_entry(entry, deltas_, chunk_);
    ++chunk_entries_;
    ++entries_;
    if (chunk_.size() < kChunkBytes) return {};
    return write_chunk();
}

Result<void> LedgerWriter::flush() {
    if (failed_ || chunk_entries_ == 0) return {};
    return write_chunk();
}

Result<void> LedgerWriter::write_chunk() {
    invariant(chunk_.size() <= kMostChunkBytes, "one ledger entry is smaller than 64 MiB");
    seal(chunk_, chunk_entries_);
    const auto written = write_whole(file_, chunk_, path_);
    if (written.has_error()) {
        failed_ = true;
        discarded_ += chunk_entries_;
        static_cast<void>(::ftruncate(file_.get(), static_cast<off_t>(file_bytes_)) == 0);
        return fail(written.error().code, fmt::format("{}; the ledger ends here, after {} entries",
                                                      written.error().text, entries_ - discarded_));
    }
    file_bytes_ += chunk_.size();
    begin_chunk();
    return {};
}

Result<LedgerReader> LedgerReader::open(const std::string& path) {
    Result<OpenFile> file = open_to_read(path);
    if (file.has_error()) return file.error();
    const Result<std::uint64_t> size = file_size(*file, path);
    if (size.has_error()) return size.error();
    LedgerReader reader;
    reader.path_ = path;
    reader.file_ = std::move(*file);
    reader.size_bytes_ = *size;
    std::array<char, kMagic.size()> magic{};
    if (*size < magic.size()) {
        return no_ledger(path, fmt::format("it has {} bytes, so its process ended before it "
                                           "recorded anything, or it is another file",
                                           *size));
    }
    const auto read = read_whole(reader.file_, 0, std::as_writable_bytes(std::span(magic)), path);
    if (read.has_error()) return read.error();
    if (magic != kMagic) return no_ledger(path, "it does not begin with DTNTLGR1");
    reader.offset_bytes_ = magic.size();
    const Result<bool> there = reader.next_chunk();
    if (there.has_error()) return there.error();
    if (!*there) return no_ledger(path, "it is cut off within its header");
    const auto* start = reinterpret_cast<const std::uint8_t*>(reader.rest_.data());
    flatbuffers::Verifier verifier(start, reader.rest_.size());
    if (!ledger::VerifyHeaderBuffer(verifier)) return no_ledger(path, "its header is none of ours");
    const ledger::Header* header = ledger::GetHeader(start);
    if (header->encoding() != kLedgerEncoding) {
        return no_ledger(
            path, fmt::format("expected encoding {}, found {}: read it with the build "
                              "that wrote it ({})",
                              kLedgerEncoding, header->encoding(), text_of(header->build())));
    }
    reader.origin_ = {{static_cast<Role>(header->role()), header->index()},
                      Incarnation{header->incarnation()},
                      Generation{header->generation()},
                      text_of(header->job()),
                      text_of(header->build()),
                      text_of(header->machine())};
    reader.rest_ = {};
    return reader;
}

Result<bool> LedgerReader::only_zeros_from(std::uint64_t offset_bytes) const {
    std::array<std::byte, 4096> portion{};
    while (offset_bytes < size_bytes_) {
        const auto part = std::span(portion).first(
            std::min<std::uint64_t>(portion.size(), size_bytes_ - offset_bytes));
        const auto read = read_whole(file_, offset_bytes, part, path_);
        if (read.has_error()) return read.error();
        for (const std::byte byte : part) {
            if (byte != std::byte{0}) return false;
        }
        offset_bytes += part.size();
    }
    return true;
}

Result<bool> LedgerReader::next_chunk() {
    const std::uint64_t left = size_bytes_ - offset_bytes_;
    if (left == 0) return false;
    const auto torn = [&]() {
        torn_tail_ = TornTail{offset_bytes_, left};
        return false;
    };
    if (left < kFrameBytes) return torn();
    ledger::Chunk frame;
    std::array<std::byte, kFrameBytes> head{};
    auto read = read_whole(file_, offset_bytes_, head, path_);
    if (read.has_error()) return read.error();
    std::memcpy(&frame, head.data(), kFrameBytes);
    const std::uint32_t length = frame.length();
    const bool sane = length > 0 && length <= kMostChunkBytes;
    if (sane && length > left - kFrameBytes) return torn();
    if (sane) {
        std::vector<std::byte> sealed(kFrameBytes + length);
        read = read_whole(file_, offset_bytes_, sealed, path_);
        if (read.has_error()) return read.error();
        if (checksum_of(std::span(sealed).subspan(sizeof(std::uint64_t))) == frame.checksum()) {
            offset_bytes_ += sealed.size();
            chunk_ = std::move(sealed);
            rest_ = std::span(chunk_).subspan(kFrameBytes);
            chunk_entries_ = frame.entries();
            deltas_ = {};
            return true;
        }
        if (sealed.size() == left) return torn();
    }
    // A file system may leave zeros where it had not written yet.
    const Result<bool> zeros = only_zeros_from(offset_bytes_);
    if (zeros.has_error()) return zeros.error();
    if (*zeros) return torn();
    return fail(ErrorCode::bad_checksum,
                fmt::format("{}: the chunk at byte {} is not as it was written, and {} bytes "
                            "follow: the file was altered; {} entries before it are whole",
                            path_, offset_bytes_, left - kFrameBytes, entries_));
}

Result<bool> LedgerReader::next(LedgerEntry& entry) {
    while (chunk_entries_ == 0) {
        if (!rest_.empty()) {
            return fail(ErrorCode::bad_message,
                        fmt::format("{}: {} bytes behind the last entry of a chunk, before byte "
                                    "{}; read it with the build that wrote it",
                                    path_, rest_.size(), offset_bytes_));
        }
        if (torn_tail_) return false;
        Result<bool> there = next_chunk();
        if (there.has_error() || !*there) return there;
    }
    Result<LedgerEntry> decoded = decode_entry(rest_, deltas_);
    if (decoded.has_error()) {
        return fail(decoded.error().code,
                    fmt::format("{}, entry {}: {}", path_, entries_ + 1, decoded.error().text));
    }
    entry = std::move(*decoded);
    --chunk_entries_;
    ++entries_;
    return true;
}

}  // namespace detente
