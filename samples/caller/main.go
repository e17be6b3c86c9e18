// Command caller asks another service, as Google's documentation does it: an ID token from Google's own library, which
// asks the metadata server.
package main

import (
	"io"
	"log"
	"net/http"
	"os"

	"cloud.google.com/go/auth/credentials"
	"cloud.google.com/go/auth/credentials/idtoken"
	"cloud.google.com/go/auth/httptransport"
	"cloud.google.com/go/compute/metadata"
)

func main() {
	http.HandleFunc("/call", func(w http.ResponseWriter, r *http.Request) {
		url := os.Getenv("CALLEE")
		creds, err := idtoken.NewCredentials(&idtoken.Options{Audience: url})
		if err != nil {
			http.Error(w, err.Error(), http.StatusInternalServerError)
			return
		}
		client, err := httptransport.NewClient(&httptransport.Options{Credentials: creds})
		if err != nil {
			http.Error(w, err.Error(), http.StatusInternalServerError)
			return
		}
		res, err := client.Get(url)
		if err != nil {
			http.Error(w, err.Error(), http.StatusBadGateway)
			return
		}
		defer res.Body.Close()
		w.WriteHeader(res.StatusCode)
		io.Copy(w, res.Body)
	})
	http.HandleFunc("/whoami", func(w http.ResponseWriter, r *http.Request) {
		creds, err := credentials.DetectDefault(&credentials.DetectOptions{Scopes: []string{"https://www.googleapis.com/auth/cloud-platform"}})
		if err != nil {
			http.Error(w, err.Error(), http.StatusInternalServerError)
			return
		}
		client, err := httptransport.NewClient(&httptransport.Options{Credentials: creds})
		if err != nil {
			http.Error(w, err.Error(), http.StatusInternalServerError)
			return
		}
		project, err := metadata.ProjectIDWithContext(r.Context())
		if err != nil {
			http.Error(w, err.Error(), http.StatusInternalServerError)
			return
		}
		res, err := client.Get("https://run.googleapis.com/v1/projects/" + project + "/locations/-/services")
		if err != nil {
			http.Error(w, err.Error(), http.StatusBadGateway)
			return
		}
		defer res.Body.Close()
		w.WriteHeader(res.StatusCode)
		io.Copy(w, res.Body)
	})
	log.Fatal(http.ListenAndServe(":"+os.Getenv("PORT"), nil))
}
