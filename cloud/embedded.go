package cloud

import (
	"giggle/fault"
	"giggle/models"
)

// embeddedModel is the model that comes with the platform.
func (c *Cloud) embeddedModel(string) (models.Backend, error) {
	return nil, fault.New(fault.FailedPrecondition, "No backend answers for this model yet. `giggle models use '*' ollama://HOST:PORT/MODEL` sets one.")
}
