package oauth

import (
	"net/http"

	"giggle/fault"
)

// revoke ends an access or refresh token (RFC 7009). gcloud 528 sends the token in the query, also of a POST. What is
// no valid token is Google's invalid_token, which gcloud takes for done, not RFC 7009's 200.
func (s *server) revoke(w http.ResponseWriter, r *http.Request) {
	token, ok := one(w, r, "token")
	if !ok {
		return
	}
	if token == "" {
		writeError(w, http.StatusBadRequest, "invalid_request", "Missing required parameter: token")
		return
	}
	switch err := s.tokens.Revoke(r.Context(), token); {
	case err == nil:
		w.Header().Set("Cache-Control", "no-store")
		writeJSON(w, http.StatusOK, struct{}{})
	case fault.Is(err, fault.InvalidArgument):
		writeError(w, http.StatusBadRequest, "invalid_token", "Token expired or revoked")
	default:
		s.internal(w, err)
	}
}

// one returns a parameter of a request, from its form or its query; twice is a mistake. If it isn't ok, it has
// answered.
func one(w http.ResponseWriter, r *http.Request, name string) (value string, ok bool) {
	if r.Form == nil {
		r.Body = http.MaxBytesReader(w, r.Body, maxForm)
		if err := r.ParseForm(); err != nil {
			writeError(w, http.StatusBadRequest, "invalid_request", "The form does not parse.")
			return "", false
		}
	}
	if len(r.Form[name]) > 1 {
		writeError(w, http.StatusBadRequest, "invalid_request", "The parameter "+name+" is there more than once.")
		return "", false
	}
	return r.Form.Get(name), true
}

func (s *server) internal(w http.ResponseWriter, err error) {
	s.log.Error("oauth", "err", err)
	writeError(w, http.StatusInternalServerError, "server_error", "Internal error.")
}
