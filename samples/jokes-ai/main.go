// Command jokesai-app is a web server that has a language model tell a joke on each request.
package main

import (
	"fmt"
	"log"
	"net/http"
	"os"

	"jokesai-app/jokesai"
)

func main() {
	port := os.Getenv("PORT")
	if port == "" {
		port = "8080"
	}
	project := os.Getenv("GOOGLE_CLOUD_PROJECT")
	if project == "" {
		project = "giggle"
	}
	http.HandleFunc("/", func(w http.ResponseWriter, r *http.Request) {
		joke, err := jokesai.HitMe("", project)
		if err != nil {
			fmt.Fprintf(w, "error: %v\n", err)
			return
		}
		fmt.Fprint(w, joke)
	})
	log.Fatal(http.ListenAndServe(":"+port, nil))
}
