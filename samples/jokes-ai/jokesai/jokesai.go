// Package jokesai has a language model on Vertex AI tell a joke.
package jokesai

import (
	"context"
	"errors"
	"fmt"

	"cloud.google.com/go/vertexai/genai"
)

// The model, and the region that it is called in.
const (
	region = "us-central1"
	model  = "gemini-2.0-flash-001"
	prompt = "tell me a terrible dad joke about tech"
)

// HitMe returns the model's answer to a prompt, or to one for a joke if it is empty. Credentials are the environment's own
// (Application Default Credentials).
func HitMe(p, project string) (string, error) {
	ctx := context.Background()
	client, err := genai.NewClient(ctx, project, region)
	if err != nil {
		return "", fmt.Errorf("client of Vertex AI: %w", err)
	}
	defer client.Close()
	if p == "" {
		p = prompt
	}
	answer, err := client.GenerativeModel(model).GenerateContent(ctx, genai.Text(p))
	if err != nil {
		return "", fmt.Errorf("generate: %w", err)
	}
	if len(answer.Candidates) == 0 || len(answer.Candidates[0].Content.Parts) == 0 {
		return "", errors.New("generate: the model said nothing")
	}
	return fmt.Sprint(answer.Candidates[0].Content.Parts[0]), nil
}
