"""For those who write a backend: small models on which everything shows, and a suite to run.

    pytest --pyargs aimv2_np.testing --backend NAME [--device DEVICE]

`backend_suite` judges any backend, built in or a plug-in's, by float64: each op, whole models, what
is fused against what is composed, packed sequences, threads, errors. It needs pytest only.
"""
