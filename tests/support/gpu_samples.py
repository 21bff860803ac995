"""What bench.gpu is tested with: a GPU as its driver tells of it, and what GoogleTest prints."""

from gpu.hardware import Gpu

H200 = Gpu("NVIDIA H200", "9.0", 132, 139 << 30, "13.0")
GTEST = """\
[==========] 12 tests from 3 test suites ran. (913 ms total)
[  PASSED  ] 9 tests.
[  SKIPPED ] 1 test, listed below:
[  SKIPPED ] CudaWithoutGpuTest.Open_SaysThatThereIsNone
[  FAILED  ] 2 tests, listed below:
[  FAILED  ] CudaTest.Cast_IsNearest
[  FAILED  ] CudaTest.Gather/1, where GetParam() = 16
"""
