// Command hello is the service that is measured: an HTTP server of the standard library, and nothing else.
package main

import (
	"io"
	"log"
	"net/http"
	"os"
)

const greeting = "hello 0"

func main() {
	answer := greeting + " from " + os.Getenv("K_REVISION") + "\n"
	http.HandleFunc("/", func(w http.ResponseWriter, r *http.Request) { io.WriteString(w, answer) })
	log.Fatal(http.ListenAndServe(":"+os.Getenv("PORT"), nil))
}
