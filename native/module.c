/* The extension: what the Python of schemas/ and streams/ says, said quickly. */
#include "native.h"

int decode_setup(void);
int decoder_setup(void);
int event_setup(void);
int fold_setup(void);
int identity_setup(void);
int join_setup(void);
int keyed_setup(void);
int log_setup(void);

static PyMethodDef functions[] = {
    {"records", log_records, METH_VARARGS, NULL},
    {"newest", log_newest, METH_VARARGS, NULL},
    {"hashes", event_hashes, METH_O, NULL},
    {"trim", trim_value, METH_VARARGS, NULL},
    {0},
};

static struct PyModuleDef module = {
    PyModuleDef_HEAD_INIT,
    .m_name = "schemas._native",
    .m_size = -1,
    .m_methods = functions,
};

PyMODINIT_FUNC PyInit__native(void)
{
    if (keyed_setup() || decode_setup() || decoder_setup() || event_setup() || fold_setup() || identity_setup() || join_setup() || log_setup())
        return NULL;
    PyObject *m = PyModule_Create(&module);
    PyTypeObject *types[] = {&DecoderType, &EventType, &BuilderType, &JoinerType, &RecordType};
    const char *names[] = {"Decoder", "Event", "Builder", "Joiner", "Record"};
    for (int n = 0; m && n < 5; n++)
        if (PyModule_AddObjectRef(m, names[n], (PyObject *)types[n])) Py_CLEAR(m);
    return m;
}
