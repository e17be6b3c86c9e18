// Package jokesgemma has a language model that an Ollama server on Cloud Run runs tell a joke.
package jokesgemma

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strings"

	"google.golang.org/api/idtoken"
)

// What is asked of which model where the caller does not say.
const (
	defaultModel  = "gemma3:4b"
	defaultPrompt = "tell me a terrible dad joke about tech"
)

// maxRefusal bounds what is read of an answer that is no success, in bytes.
const maxRefusal = 4 << 10

// HitMe returns the model's answer to a prompt. Uri is that of the server's call, SERVICE/api/generate. The request carries an
// ID token for the service, of the environment's own credentials (Application Default Credentials): a private service
// knows by it who calls.
func HitMe(prompt, model, uri string) (string, error) {
	if prompt == "" {
		prompt = defaultPrompt
	}
	if model == "" {
		model = defaultModel
	}
	at, err := url.Parse(uri)
	if err != nil {
		return "", fmt.Errorf("address of the model server: %w", err)
	}
	if at.Host == "" {
		return "", fmt.Errorf("address of the model server: %q is none: want https://SERVICE/api/generate", uri)
	}
	ctx := context.Background()
	client, err := idtoken.NewClient(ctx, at.Scheme+"://"+at.Host)
	if err != nil {
		return "", fmt.Errorf("ID token for %s: %w", at.Host, err)
	}
	body, err := json.Marshal(map[string]any{"model": model, "prompt": prompt})
	if err != nil {
		return "", err
	}
	res, err := client.Post(uri, "application/json", bytes.NewReader(body))
	if err != nil {
		return "", fmt.Errorf("model server: %w", err)
	}
	defer res.Body.Close()
	if res.StatusCode != http.StatusOK {
		text, _ := io.ReadAll(io.LimitReader(res.Body, maxRefusal))
		return "", fmt.Errorf("model server: %s: %s", res.Status, bytes.TrimSpace(text))
	}
	return join(res.Body)
}

// join reads the lines of an answer, a JSON object each with a piece of the text, up to the one that says done
// (https://github.com/ollama/ollama/blob/main/docs/api.md).
func join(r io.Reader) (string, error) {
	var text strings.Builder
	for d := json.NewDecoder(r); ; {
		var piece struct {
			Response, Error string
			Done            bool
		}
		if err := d.Decode(&piece); errors.Is(err, io.EOF) {
			return "", errors.New("model server: the answer broke off")
		} else if err != nil {
			return "", fmt.Errorf("model server: %w", err)
		}
		if piece.Error != "" {
			return "", fmt.Errorf("model server: %s", piece.Error)
		}
		text.WriteString(piece.Response)
		if piece.Done {
			return strings.TrimSpace(text.String()), nil
		}
	}
}
