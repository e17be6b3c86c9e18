// Command hello is the service that is measured: an HTTP server of the standard library, and nothing else.
package main

import (
	"fmt"
	"log"
	"net/http"
	"os"
)

const greeting = "hello 0"

func main() {
	http.HandleFunc("/", func(w http.ResponseWriter, r *http.Request) { fmt.Fprintln(w, greeting) })
	log.Fatal(http.ListenAndServe(":"+os.Getenv("PORT"), nil))
}
