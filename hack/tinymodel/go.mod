// The training of the model that is built into giggle. The platform's own module has no use for it.
module giggle/hack/tinymodel

go 1.26.8

require giggle v0.0.0-00010101000000-000000000000

replace giggle => ../..
