package registry

import "strings"

// form is how a family of models writes a conversation, in Ollama's language of templates (Go's text/template).
type form struct {
	mark     string // stands in the chat templates of the family, and in no other's
	template string
	stop     []string // texts that end an answer
}

// forms are those that are known, the same as in package embedded, and Gemma's. A file's own template is a Jinja
// program, which Ollama does not run.
var forms = []form{
	{
		mark:     "'<|' + m['role'] + '|>'",
		template: "{{ range .Messages }}<|{{ .Role }}|>{{ .Content }}</s>{{ end }}<|assistant|>",
		stop:     []string{"</s>", "<|user|>", "<|system|>"},
	},
	{
		mark:     "<|im_start|>",
		template: "{{ range .Messages }}<|im_start|>{{ .Role }}\n{{ .Content }}<|im_end|>\n{{ end }}<|im_start|>assistant\n",
		stop:     []string{"<|im_start|>", "<|im_end|>"},
	},
	{
		mark:     "<|start_header_id|>",
		template: "{{ range .Messages }}<|start_header_id|>{{ .Role }}<|end_header_id|>\n\n{{ .Content }}<|eot_id|>{{ end }}<|start_header_id|>assistant<|end_header_id|>\n\n",
		stop:     []string{"<|start_header_id|>", "<|end_header_id|>", "<|eot_id|>"},
	},
	{
		mark:     "<start_of_turn>",
		template: "{{ range .Messages }}<start_of_turn>{{ if eq .Role \"assistant\" }}model{{ else }}user{{ end }}\n{{ .Content }}<end_of_turn>\n{{ end }}<start_of_turn>model\n",
		stop:     []string{"<end_of_turn>"},
	},
}

// formOf returns the form that a chat template is of, or nil: Ollama then gives the model the prompt as it is.
func formOf(chat string) *form {
	for i, f := range forms {
		if strings.Contains(chat, f.mark) {
			return &forms[i]
		}
	}
	return nil
}
