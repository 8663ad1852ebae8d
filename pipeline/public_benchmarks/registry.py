"""The published benchmarks by name."""

from pipeline.public_benchmarks.benchmark import Benchmark
from pipeline.public_benchmarks.egoschema import EGOSCHEMA
from pipeline.public_benchmarks.longvideobench import LONGVIDEOBENCH
from pipeline.public_benchmarks.mlvu import MLVU
from pipeline.public_benchmarks.mvbench import MVBENCH
from pipeline.public_benchmarks.nextqa import NEXTQA
from pipeline.public_benchmarks.tempcompass import TEMPCOMPASS
from pipeline.public_benchmarks.videomme import VIDEOMME

BENCHMARKS: dict[str, Benchmark] = {
    one.name: one for one in (VIDEOMME, MLVU, LONGVIDEOBENCH, MVBENCH, EGOSCHEMA, NEXTQA, TEMPCOMPASS)
}
