"""Datasets of gridded fields: every variable of an xarray.Dataset, its names, types and attributes, in one .lpz file.

    NetCDF, Zarr, GRIB --sources--> Dataset as on disk --writing--> .lpz
    .lpz --reading--> DatasetFile --lazy--> xarray.Dataset --netcdf, zarr--> NetCDF, Zarr

    description  the JSON of a dataset, both ways         bounds   what the caller asks for -> target of each variable
    attributes   attributes as JSON, both ways            exact    variables that no codec touches
"""
