"""Compiled code of neural networks: activations, losses, optimizer updates, dense layers and whole training steps.

`activations`, `losses` and `updates` are kernels with C signatures of their own; `dense` and `network` are drivers that
call them, and matrix products, by address. Modules here import `fastinit.kernels` only. Start reading at `dense`, then
`network`.
"""
