// Command vertexai makes the calls that applications make with cloud.google.com/go/vertexai/genai, by gRPC and by REST,
// and fails where an answer is not what the library's users get from Google.
package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log"
	"net/http"
	"os"

	"cloud.google.com/go/vertexai/genai"
	"google.golang.org/api/iterator"
	"google.golang.org/api/option"
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
	for name, opts := range transports {
		if err := try(ctx, project, opts...); err != nil {
			fmt.Fprintf(out, "%s: %v\n", name, err)
			return false
		}
		fmt.Fprintln(out, name, "ok")
	}
	return true
}

func try(ctx context.Context, project string, opts ...option.ClientOption) error {
	client, err := genai.NewClient(ctx, project, "us-central1", opts...)
	if err != nil {
		return err
	}
	defer client.Close()
	model := client.GenerativeModel("gemini-2.0-flash-001")
	model.SetTemperature(0)
	model.SetMaxOutputTokens(40)
	instruct(model, "you are funny")
	res, err := model.GenerateContent(ctx, genai.Text("tell me a joke about cats"))
	if err != nil {
		return fmt.Errorf("generate: %w", err)
	}
	if len(res.Candidates) != 1 || len(res.Candidates[0].Content.Parts) != 1 ||
		(usageOfLast && (res.UsageMetadata.PromptTokenCount == 0 || res.UsageMetadata.CandidatesTokenCount == 0)) {
		return fmt.Errorf("generate: %+v", res)
	}
	whole, _ := res.Candidates[0].Content.Parts[0].(genai.Text)

	var streamed string
	var usage *genai.UsageMetadata
	for it := model.GenerateContentStream(ctx, genai.Text("tell me a joke about cats")); ; {
		res, err := it.Next()
		if errors.Is(err, iterator.Done) {
			break
		}
		if err != nil {
			return fmt.Errorf("stream: %w", err)
		}
		for _, p := range res.Candidates[0].Content.Parts {
			text, _ := p.(genai.Text)
			streamed += string(text)
		}
		usage = res.UsageMetadata
	}
	if streamed != string(whole) || usage == nil || usage.TotalTokenCount == 0 {
		return fmt.Errorf("stream: %q with %+v, and at once %q", streamed, usage, whole)
	}
	n, err := model.CountTokens(ctx, genai.Text("tell me a joke about cats"))
	if err != nil || n.TotalTokens == 0 {
		return fmt.Errorf("count: %+v, %w", n, err)
	}
	chat := model.StartChat()
	for range 2 {
		if _, err := chat.SendMessage(ctx, genai.Text("another one")); err != nil {
			return fmt.Errorf("chat: %w", err)
		}
	}
	if holdToJSON(model) {
		if _, err := model.GenerateContent(ctx, genai.Text("hello")); err == nil {
			return errors.New("the embedded model can't hold itself to JSON, and did not say so")
		}
	}
	if _, err := client.GenerativeModel("claude").GenerateContent(ctx, genai.Text("hello")); err == nil {
		return errors.New("a model that is not there answered")
	}
	return nil
}
