// Command genai makes the calls that applications make with google.golang.org/genai, and fails where an answer is not
// what the library's users get from Google.
package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log"
	"net/http"
	"os"

	"google.golang.org/genai"
)

// main makes the calls, or, as a service, makes them for each request.
func main() {
	if os.Getenv("K_SERVICE") != "" {
		log.Fatal(http.ListenAndServe(":"+os.Getenv("PORT"),
			http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				all(r.Context(), w,
					os.Getenv("PROJECT"))
			})))
	}
	if !all(context.Background(), os.Stdout, os.Args[1]) {
		os.Exit(1)
	}
}

func all(ctx context.Context, out io.Writer, project string) (ok bool) {
	for _, location := range []string{"us-central1", "global", "us"} {
		if err := try(ctx, project, location); err != nil {
			fmt.Fprintf(out, "%s: %v\n", location, err)
			return false
		}
		fmt.Fprintln(out, location, "ok")
	}
	return true
}

func try(ctx context.Context, project, location string) error {
	client, err := genai.NewClient(ctx,
		&genai.ClientConfig{Project: project, Location: location, Backend: genai.BackendVertexAI})
	if err != nil {
		return err
	}
	const model = "gemini-2.5-flash"
	cfg := &genai.GenerateContentConfig{
		Temperature:       genai.Ptr[float32](0),
		MaxOutputTokens:   40,
		SystemInstruction: genai.NewContentFromText("you are funny", genai.RoleUser),
	}
	ask := genai.Text("tell me a joke about cats")
	res, err := client.Models.GenerateContent(ctx, model, ask, cfg)
	if err != nil {
		return fmt.Errorf("generate: %w", err)
	}
	if res.Text() == "" || res.UsageMetadata == nil || res.UsageMetadata.PromptTokenCount == 0 ||
		res.ModelVersion == "" || res.ModelVersion == model {
		return fmt.Errorf("generate: %+v", res)
	}
	var streamed string
	for piece, err := range client.Models.GenerateContentStream(ctx, model, ask, cfg) {
		if err != nil {
			return fmt.Errorf("stream: %w", err)
		}
		streamed += piece.Text()
	}
	if streamed != res.Text() {
		return fmt.Errorf("stream: %q, and at once %q", streamed, res.Text())
	}
	n, err := client.Models.CountTokens(ctx, model, ask, nil)
	if err != nil || n.TotalTokens == 0 {
		return fmt.Errorf("count: %+v, %w", n, err)
	}
	chat, err := client.Chats.Create(ctx, model, cfg, nil)
	if err != nil {
		return err
	}
	for range 2 {
		if _, err := chat.SendMessage(ctx, genai.Part{Text: "another one"}); err != nil {
			return fmt.Errorf("chat: %w", err)
		}
	}
	var refused genai.APIError
	_, err = client.Models.GenerateContent(ctx, model, ask,
		&genai.GenerateContentConfig{ResponseMIMEType: "application/json"})
	if !errors.As(err, &refused) || refused.Code != 405 {
		return fmt.Errorf("the embedded model can't hold itself to JSON, and said %v", err)
	}
	_, err = client.Models.GenerateContent(ctx, "claude", ask, nil)
	if !errors.As(err, &refused) || refused.Code != 404 {
		return fmt.Errorf("a model that is not there: %v", err)
	}
	return nil
}
