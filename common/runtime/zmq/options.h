// What a real loop must be told. Plain values; what is pointed to outlives the loop.
#pragma once

#include <cstdint>
#include <functional>
#include <string>
#include <string_view>

#include "common/config.h"
#include "common/ids.h"
#include "common/runtime/loop.h"

namespace detente {

using LogSink = std::function<void(LogLevel, std::string_view)>;

struct ZmqLoopOptions {
    NodeId self;
    Incarnation incarnation{1};
    Generation generation;
    std::uint64_t build = 0;

    std::string host;  // the same text on the same host, and on no other
    // Shards bind; workers bind nothing and ignore these three.
    std::string bind_address = "127.0.0.1";
    std::uint16_t port = 0;         // 0 = a free one
    std::string advertise_address;  // what peers connect to; empty = bind_address

    TransportKind transport = TransportKind::automatic;
    ChecksumMode checksum = ChecksumMode::automatic;
    int io_threads = 1;
    Nanos linger = std::chrono::seconds(2);  // for what was sent before finish()

    Computer* computer = nullptr;    // none: every compute() ends with not_supported
    LedgerSink* ledger = nullptr;    // none: records are dropped
    Reducer* reducer = nullptr;      // none: every group ends with not_supported
    ControlLink* control = nullptr;  // none: what is sent to the coordinator is counted as dropped
    LogSink log;                     // thread: the loop's
};

}  // namespace detente
