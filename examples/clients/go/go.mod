module latchkey.example/client

go 1.19
