// Command jokesgemma-app is a web server that has a language model of one's own tell a joke on each request.
package main

import (
	"fmt"
	"log"
	"net/http"
	"os"

	"jokesgemma-app/jokesgemma"
)

func main() {
	port := os.Getenv("PORT")
	if port == "" {
		port = "8080"
	}
	http.HandleFunc("/", func(w http.ResponseWriter, _ *http.Request) {
		joke, err := jokesgemma.HitMe("tell me a joke about the alps and the tyrolien", "", os.Getenv("OLLAMA_URI"))
		if err != nil {
			fmt.Fprintf(w, "error: %v\n", err)
			return
		}
		fmt.Fprint(w, joke)
	})
	log.Fatal(http.ListenAndServe(":"+port, nil))
}
