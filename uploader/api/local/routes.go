package local

import (
	"net/http"
	"strings"
)

// Op names a call of the API.
type Op string

// The calls.
const (
	OpCreate   Op = "create"   // POST /v1/uploads
	OpPart     Op = "part"     // POST /v1/uploads/{id}/parts
	OpComplete Op = "complete" // POST /v1/uploads/{id}/complete
	OpCancel   Op = "cancel"   // POST /v1/uploads/{id}/cancel

	OpFileCreate  Op = "file_create"  // POST /v1/files
	OpFileList    Op = "file_list"    // GET /v1/files
	OpFileGet     Op = "file_get"     // GET /v1/files/{id}
	OpFileContent Op = "file_content" // GET /v1/files/{id}/content
	OpFileDelete  Op = "file_delete"  // DELETE /v1/files/{id}

	OpUnknown Op = "unknown" // everything else
)

// route is one call of the API. Its handler returns an object that is sent as JSON, or a sender, or an error.
type route struct {
	method  string
	path    string // segments; {id} stands for any
	op      Op
	handler func(*Server, *call) (any, error)
}

var routes = []route{
	{http.MethodPost, "v1/uploads", OpCreate, (*Server).createUpload},
	{http.MethodPost, "v1/uploads/{id}/parts", OpPart, (*Server).addPart},
	{http.MethodPost, "v1/uploads/{id}/complete", OpComplete, (*Server).completeUpload},
	{http.MethodPost, "v1/uploads/{id}/cancel", OpCancel, (*Server).cancelUpload},
	{http.MethodPost, "v1/files", OpFileCreate, (*Server).createFile},
	{http.MethodGet, "v1/files", OpFileList, (*Server).listFiles},
	{http.MethodGet, "v1/files/{id}", OpFileGet, (*Server).getFile},
	{http.MethodGet, "v1/files/{id}/content", OpFileContent, (*Server).fileContent},
	{http.MethodDelete, "v1/files/{id}", OpFileDelete, (*Server).deleteFile},
}

// find returns the route of a request and the ID in its path. If there is none, it returns the methods that the path
// allows. http.ServeMux would answer in plain text, and would redirect paths that are not clean.
func find(method, urlPath string) (found *route, id string, allowed []string) {
	segments := strings.Split(strings.TrimPrefix(urlPath, "/"), "/")
	for i := range routes {
		thisID, ok := match(routes[i].path, segments)
		switch {
		case !ok:
		case routes[i].method == method:
			return &routes[i], thisID, nil
		default:
			allowed = append(allowed, routes[i].method)
		}
	}
	return nil, "", allowed
}

func match(pattern string, segments []string) (id string, ok bool) {
	want := strings.Split(pattern, "/")
	if len(want) != len(segments) {
		return "", false
	}
	for i, segment := range segments {
		switch {
		case want[i] == "{id}" && segment != "":
			id = segment
		case want[i] != segment:
			return "", false
		}
	}
	return id, true
}
