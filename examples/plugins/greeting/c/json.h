// Reads JSON objects whose values are strings. The host hands over nothing but valid JSON.
#ifndef JSON_H
#define JSON_H

#include <stdbool.h>
#include <stddef.h>

// One member of an object.
typedef struct {
    char *key;   // ends in a zero byte, allocated
    char *value; // the same; NULL if it is no string
} json_member_t;

// Goes to the next member, which begins at *at; false at the end of the object. Begin with *at at the
// object's first byte.
bool json_next(const char **at, const char *end, json_member_t *member);

#endif
