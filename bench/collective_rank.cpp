// A rank of collective_bench under Open MPI's launcher: prints its times if it is the first.
//   collective_rank RUN full|quick
#include <mpi.h>

#include <cstdio>
#include <cstring>

#include "bench/collective_ranks.h"

int main(int argc, char** argv) {
    MPI_Init(&argc, &argv);
    int rank = 0;
    MPI_Comm_rank(MPI_COMM_WORLD, &rank);
    if (argc == 3) {
        detente::bench::RankSetup setup;
        setup.rank = static_cast<std::size_t>(rank);
        setup.run = argv[1];
        setup.quick = std::strcmp(argv[2], "quick") == 0;
        setup.barrier = [] { MPI_Barrier(MPI_COMM_WORLD); };
        setup.mpi_sum = [](const float* from, float* to, std::size_t elements) {
            MPI_Allreduce(from, to, static_cast<int>(elements), MPI_FLOAT, MPI_SUM, MPI_COMM_WORLD);
        };
        const auto times = detente::bench::measure_ranks(setup);
        if (rank == 0) std::fputs(detente::bench::text_of(times).c_str(), stdout);
    }
    MPI_Finalize();
    return argc == 3 ? 0 : 2;
}
