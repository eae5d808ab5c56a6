// Package elasticsearch protects Elasticsearch 7.10 to 8.x and OpenSearch 2.x
// over plain HTTP. What a server can do is found out by asking it, never by its name.
//
// A backup is a snapshot into a fresh repository on a directory that all
// nodes share (path.repo), throttles lifted; the repository's files become
// content-identified artifacts, so that a second backup of unchanged indices
// stores almost nothing. Beside it stand the definition of every index, a
// digest of the documents of every shard, and the objects of the cluster
// (templates, pipelines, stored scripts, settings). Where the nodes share no directory,
// documents are exported one by one; what that cannot carry is refused by name.
//
// A restore puts the needed part of the repository back, deletes by name
// what differs, and lets the server restore it. An index of its own, whose name holds
// the epoch, is the claim: indices are deleted only in one atomic request that fails when
// that index is gone, and repositories belong to one attempt.
package elasticsearch
