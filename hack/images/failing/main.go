// Command failing is a web server that answers 500 to everything: what the tutorial rolls out to see a service fail.
package main

import (
	"log"
	"net/http"
	"os"
)

func main() {
	port := os.Getenv("PORT")
	if port == "" {
		port = "8080"
	}
	log.Fatal(http.ListenAndServe(":"+port, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		log.Printf("%s %s: failing, as always", r.Method, r.URL.Path)
		http.Error(w, "Internal Server Error", http.StatusInternalServerError)
	})))
}
