// Command direct is a service that asks a PostgreSQL who it is, by name and port or by a socket.
package main

import "giggle/test/cloudsql/ask"

func main() { ask.Main(nil) }
