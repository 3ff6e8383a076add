module latchkey.example/drive

go 1.19

require latchkey.example/client v0.0.0

replace latchkey.example/client => ../../../../examples/clients/go
