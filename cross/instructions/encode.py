"""Runs an encoder in onnxruntime, on one thread: encode.py ONNX RESOLUTION RUNS"""

import sys

import numpy
import onnxruntime

path, resolution, runs = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
options = onnxruntime.SessionOptions()
options.intra_op_num_threads = options.inter_op_num_threads = 1
session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
ramp = numpy.arange(3 * resolution * resolution, dtype=numpy.float32) % 17 / 8 - 1
view = ramp.reshape(1, 3, resolution, resolution)
for _ in range(runs):
    features = session.run(None, {session.get_inputs()[0].name: view})[0]
print(features.ravel()[:4])
