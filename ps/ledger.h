// The ledger of one node on disk: append-only, compact (ps/ledger_encoding.h), in chunks with a
// checksum each, so that what a crash tears is at most the last one. Layout: schemas/ledger.fbs.
//
// One file per process and incarnation: a writer takes a path of its own and never goes on in
// another's file.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "common/file.h"
#include "common/ledger_entry.h"
#include "common/runtime/loop.h"
#include "ps/ledger_encoding.h"

namespace detente {

struct LedgerOrigin {
    NodeId node;
    Incarnation incarnation{1};
    Generation generation;
    std::string job;      // its name
    std::string build;    // for people
    std::string machine;  // instruction set, library versions, threads
};

std::string ledger_file_name(NodeId node, Incarnation incarnation);  // "shard-0.1.ledger"

// Thread: its loop's. Appends gather in memory and reach the disk as a chunk at kChunkBytes or at
// flush(). After a failed write the file is cut back to its last whole chunk and nothing more is
// written: a record with a hole would not replay.
class LedgerWriter : public LedgerSink {
  public:
    static constexpr std::size_t kChunkBytes = 64U << 10U;

    // Creates the file. io: not writable, disk full, or the path already holds a ledger.
    static Result<std::unique_ptr<LedgerWriter>> create(const std::string& path,
                                                        const LedgerOrigin& origin);
    ~LedgerWriter() override;  // flushes

    // io, once, when writing failed; afterwards entries are counted as discarded.
    Result<void> append(const LedgerEntry& entry) override;
    Result<void> flush() override;

    std::uint64_t entries() const { return entries_; }  // appended
    std::uint64_t discarded() const { return discarded_; }
    std::uint64_t file_bytes() const { return file_bytes_; }  // whole chunks on disk

  private:
    LedgerWriter(std::string path, OpenFile file) : path_(std::move(path)), file_(std::move(file)) {
        begin_chunk();
    }
    void begin_chunk();
    Result<void> write_chunk();

    std::string path_;
    OpenFile file_;
    std::vector<std::byte> chunk_;  // begins with room for its frame
    std::uint32_t chunk_entries_ = 0;
    LedgerDeltas deltas_;
    std::uint64_t entries_ = 0;
    std::uint64_t discarded_ = 0;
    std::uint64_t file_bytes_ = 0;
    bool failed_ = false;
};

// Reads a ledger from its beginning; also one that is still being written, or that a crash cut off.
class LedgerReader {
  public:
    struct TornTail {
        std::uint64_t offset_bytes = 0;  // where the last whole chunk ends
        std::uint64_t bytes = 0;         // behind it
    };

    // io; bad_message: no ledger, cut off within its header, or of another encoding.
    static Result<LedgerReader> open(const std::string& path);

    const LedgerOrigin& origin() const { return origin_; }
    // Reads the next entry; false at the end. bad_checksum: a chunk that is not the last was
    // altered (what is before it has been read; nothing can be read after it).
    Result<bool> next(LedgerEntry& entry);
    // Known once next() said false: the end is not whole, as a crash leaves it.
    const std::optional<TornTail>& torn_tail() const { return torn_tail_; }
    std::uint64_t entries() const { return entries_; }  // returned

  private:
    LedgerReader() = default;
    // Puts the next frame's bytes into chunk_; false at the end or at a torn tail.
    Result<bool> next_chunk();
    Result<bool> only_zeros_from(std::uint64_t offset_bytes) const;

    std::string path_;
    OpenFile file_;
    LedgerOrigin origin_;
    std::uint64_t size_bytes_ = 0;
    std::uint64_t offset_bytes_ = 0;
    std::vector<std::byte> chunk_;
    std::span<const std::byte> rest_;
    std::uint32_t chunk_entries_ = 0;  // left in it
    LedgerDeltas deltas_;
    std::uint64_t entries_ = 0;
    std::optional<TornTail> torn_tail_;
};

// One line each, without its end. Names of fields are stable; 64-bit values are plain numbers, but
// hashes are text.
std::string ledger_to_json_line(const LedgerOrigin& origin);
std::string ledger_to_json_line(const LedgerEntry& entry);
std::string ledger_to_text(const LedgerEntry& entry);

}  // namespace detente
