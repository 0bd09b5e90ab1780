/* Fields of msgspec structs by their place: a member descriptor says where, as for any class with slots. */
#include "native.h"
#include <structmember.h>
#include <descrobject.h>

int slots_init(Slots *slots, PyObject *base, PyObject *names)
{
    if (!PyType_Check(base) || !PyTuple_Check(names)) {
        PyErr_SetString(PyExc_TypeError, "a type and a tuple of names are wanted");
        return -1;
    }
    slots->base = Py_NewRef(base);
    slots->names = Py_NewRef(names);
    slots->count = 0;
    return 0;
}

void slots_clear(Slots *slots)
{
    for (int n = 0; n < slots->count; n++) {
        PyMem_Free(slots->shapes[n].offsets);
        Py_CLEAR(slots->shapes[n].type);
    }
    slots->count = 0;
    Py_CLEAR(slots->base);
    Py_CLEAR(slots->names);
}

static Py_ssize_t offset_of(PyTypeObject *type, PyObject *name)
{
    PyObject *found = PyObject_GetAttr((PyObject *)type, name);
    if (!found) return -1;
    Py_ssize_t offset = -1;
    if (Py_TYPE(found) == &PyMemberDescr_Type) {
        PyMemberDef *member = ((PyMemberDescrObject *)found)->d_member;
        if (member->type == T_OBJECT_EX) offset = member->offset;
    }
    Py_DECREF(found);
    if (offset < 0) PyErr_Format(PyExc_TypeError, "%s.%U is no field of a struct", type->tp_name, name);
    return offset;
}

static const Py_ssize_t *learn(Slots *slots, PyTypeObject *type)
{
    if (!PyType_IsSubtype(type, (PyTypeObject *)slots->base) || slots->count == SHAPES_MAX) {
        PyErr_Format(PyExc_TypeError, "%s is not expected here", type->tp_name);
        return NULL;
    }
    Py_ssize_t count = PyTuple_GET_SIZE(slots->names);
    Py_ssize_t *offsets = PyMem_Calloc((size_t)count, sizeof *offsets);
    if (!offsets) return (const Py_ssize_t *)PyErr_NoMemory();
    for (Py_ssize_t n = 0; n < count; n++) {
        offsets[n] = offset_of(type, PyTuple_GET_ITEM(slots->names, n));
        if (offsets[n] < 0) {
            PyMem_Free(offsets);
            return NULL;
        }
    }
    slots->shapes[slots->count++] = (Shape){(PyTypeObject *)Py_NewRef(type), offsets};
    return offsets;
}

const Py_ssize_t *slots_of(Slots *slots, PyObject *object)
{
    PyTypeObject *type = Py_TYPE(object);
    for (int n = 0; n < slots->count; n++)
        if (slots->shapes[n].type == type) return slots->shapes[n].offsets;
    const Py_ssize_t *learned;
    LOCKED(learned = learn(slots, type));
    return learned;
}
